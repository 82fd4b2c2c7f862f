"""Commands and Python blocks of README and docs, and how a test runs each in seconds.

Commands stand in blocks marked ``sh``, Python in blocks marked ``python``; a title makes a Python
block the file of that name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?P<rest>[^`]*)$")
_TITLE = re.compile(r'title="([^"]+)"')
# A command outside a ``sh`` block: indented as code, or in a block of another kind.
_LOOKS_RUN = re.compile(
    r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:taskset|python3?|pip|wandb|tensorboard) \S"
)
_REDIRECTION = re.compile(r"\s\d?>(?:&\d|\s*\S+)")
_BREAKS = {"&&", ";", "&", "|", "||"}


@dataclass(frozen=True)
class Block:
    """A code block of a page, with the number of its first line."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a ``sh`` block, without variables before it and what pins it to a core."""

    block: Block
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block}: {shlex.join(self.words)}"

    @property
    def script(self) -> str:
        """The script that it runs, such as ``train_agent``; empty if it runs none."""
        if self.words[0] != "python" or not self.words[1:]:
            return ""
        found = re.fullmatch(r"scripts/(\w+)\.py", self.words[1])
        return found[1] if found else ""

    @property
    def module(self) -> str:
        """The module that it runs by ``python -m``; empty if it runs none."""
        return self.words[2] if self.words[:2] == ("python", "-m") else ""


def pages() -> list[Path]:
    """README and every page of the docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page in their order."""
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        number += 1
        if opening is None:
            continue
        indent, begin = len(opening["indent"]), number
        while number < len(lines) and lines[number].strip() != "```":
            number += 1
        text = "\n".join(line[indent:] for line in lines[begin:number])
        title = _TITLE.search(opening["rest"])
        yield Block(page, begin + 1, opening["language"], title[1] if title else "", text)
        number += 1


def unmarked_commands(page: Path) -> list[str]:
    """Lines that look like commands, but that no ``sh`` block holds."""
    lines = page.read_text().splitlines()
    inside: dict[int, str] = {}
    for block in blocks(page):
        for number, _ in enumerate(block.text.splitlines(), start=block.line):
            inside[number] = block.language
    return [
        f"{page.relative_to(ROOT)}:{number}: {line.strip()}"
        for number, line in enumerate(lines, start=1)
        if _LOOKS_RUN.match(line)
        and inside.get(number) not in ("sh", "python")
        and (number in inside or line.startswith("    "))
    ]


def commands(block: Block) -> list[Command]:
    """The commands of a ``sh`` block; lines that end with a backslash continue."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("for "):
            # A loop counts as the command in it.
            line = line.partition("; do ")[2].partition("; done")[0]
        lexer = shlex.shlex(_REDIRECTION.sub("", line), posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in _BREAKS:
                words.append(word)
                continue
            if bare := tuple(_without_prefix(words)):
                found.append(Command(block, bare))
            words = []
    return found


def _without_prefix(words: Sequence[str]) -> Sequence[str]:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words[3:] if words[:2] == ["taskset", "-c"] else words


# -- what is not run, and why ----------------------------------------------------------------------

SKIPPED: Mapping[str, str] = {
    "wandb login": "needs an account",
    "wandb sync": "needs an account",
    "-m gpu": "needs a GPU",
    "trackio show": "runs until it is stopped",
    "timm:": "needs a download",
    "--launcher ray": "needs a Ray cluster",
    **({} if find_spec("gensim") else {"--word-vectors": "needs Gensim"}),
}
"""A part of a command -> why it is not run."""


def reason_to_skip(command: Command) -> str:
    """Why a command is not run; empty if it is."""
    line = shlex.join(command.words)
    return next((reason for part, reason in SKIPPED.items() if part in line), "")


# -- shorter by options ----------------------------------------------------------------------------

_LEARNING = {
    "--total-steps": "32",
    "--num-envs": "2",
    "--num-threads": "1",
    "--ppo.n-steps": "8",
    "--ppo.batch-size": "0",
    "--ppo.n-epochs": "1",
    "--dqn.learning-starts": "8",
    "--dqn.buffer-size": "200",
    "--dqn.batch-size": "4",
    "--eval-every": "0",
    "--eval-episodes": "1",
    "--video-every": "0",
    "--checkpoint-every": "16",
    "--precision": "fp32",
    "--track": "disabled",
}
SHORT: Mapping[str, Mapping[str, str]] = {
    "train_agent": _LEARNING,
    "compare_encoders": {**_LEARNING, "--seeds": "2"},
    # Long enough for a game to end.
    "search_hyperparameters": {
        **_LEARNING,
        "--total-steps": "128",
        "--checkpoint-every": "64",
        "--trials": "2",
        "--finalists": "1",
        "--final-seeds": "1",
    },
    "pretrain_encoder": {
        "--epochs": "1",
        "--batch-size": "8",
        "--num-threads": "1",
        "--precision": "fp32",
        "--baseline-images": "16",
        "--frames.train-frames": "100",
        "--frames.test-frames": "100",
        "--frames.min-entropy": "0",
        "--warmup-epochs": "0",
        "--track": "disabled",
    },
    "evaluate_agent": {"--episodes": "1"},
    "evaluate_classifier": {},
    "describe_encoder": {},
    "film_agents": {"--max-steps": "20", "--track": "disabled"},
    "probe_encoder": {
        "--train-size": "24",
        "--test-size": "12",
        "--max-features": "64",
        "--frames.train-frames": "600",
        "--frames.test-frames": "600",
    },
    "visualize_encoder": {
        "--frames.train-frames": "100",
        "--frames.test-frames": "100",
        "--frames.min-entropy": "0",
        # An agent's games are played to their ends, which Krull's are long in coming to.
        "--frames.max-episode-steps": "100",
        "--perplexity": "3",
        "--style.steps": "2",
        "--track": "disabled",
    },
    "make_lecture": {"--only": "counting", "--epochs": "1", "--train-size": "24"},
    "benchmark": {
        "--rounds": "1",
        "--seconds": "0.01",
        "--num-threads": "1",
        "--precision": "fp32",
        "--compile": "off",
        "--ppo.n-steps": "8",
        "--ppo.batch-size": "0",
        "--ppo.n-epochs": "1",
        "--dqn.buffer-size": "200",
        "--dqn.batch-size": "4",
        "--encoder-batch": "2",
        # No names: stable-baselines3's processes and torchvision's networks take most of the time.
        "--peers": "",
        "--image-models": "",
        "--num-envs": "2",
    },
    "gpu suite": {"--device": "cpu", "--suite-scale": "tiny", "--minutes": "0.1"},
    "agents.benchmark.priorities": {"--steps": "50"},
    "agents.benchmark.busy": {"--rounds": "1", "--seconds": "0.01", "--num-threads": "1"},
}
"""A script or module (or the benchmark's suite) -> options that make any of its commands short."""

ONLY_IF_GIVEN: Mapping[str, str] = {"--unfreeze-at-step": "16", "--train-size": "16"}
"""Options that are made short where a command has them."""

EXTENDED: Mapping[str, str] = {"--total-steps": "64", "--epochs": "2", "--trials": "3"}
"""Lengths of what a command resumes and extends."""


def shorten(words: Sequence[str], options: Mapping[str, str]) -> list[str]:
    """Arguments of a script with short values: those of ``options``, whether given or not.

    A command that resumes a run keeps its options, but for a length that extends it. An option
    without a value is added where the command does not have it.
    """
    resumes = "--resume" in words
    short = EXTENDED if resumes else {**ONLY_IF_GIVEN, **options}
    result: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        result.append(word)
        if short.get(word) and position + 1 < len(words):
            result.append(short[word])
            position += 1
        position += 1
    if not resumes:
        for option, value in options.items():
            if option not in words:
                result += [option, value] if value else [option]
    return result
