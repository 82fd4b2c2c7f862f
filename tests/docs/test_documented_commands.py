"""Every command and every Python block of README and docs, read by its parser and run."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.documented import (
    ROOT,
    SHORT,
    Block,
    Command,
    blocks,
    commands,
    pages,
    reason_to_skip,
    shorten,
    unmarked_commands,
)
from support.documented_files import as_killed, make_workspace
from support.script_runs import load_script

from envs.errors import UserError
from rlcnn.config import cli, runs

PAGES = pages()
PAGES_WITH_CODE = [
    page for page in PAGES if any(block.language in ("sh", "python") for block in blocks(page))
]
# Two need an optional package.
MOST_SKIPPED = 6
COMMANDS = [
    command
    for page in PAGES
    for block in blocks(page)
    if block.language == "sh"
    for command in commands(block)
]
SCRIPTS = sorted({command.script for command in COMMANDS if command.script})


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


class _LineRead(Exception):  # noqa: N818
    """Raised when a script has read its command line."""


# -- the fast part ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_stands_in_a_block_that_is_tested(page: Path) -> None:
    assert not unmarked_commands(page), "mark the block as sh"


def test_few_commands_are_skipped() -> None:
    skipped = {command.words: reason_to_skip(command) for command in COMMANDS}
    skipped = {words: reason for words, reason in skipped.items() if reason}
    assert len(skipped) <= MOST_SKIPPED, skipped


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_know_the_options_of_every_command(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    read = cli.parse_options

    def stop_when_read(*arguments: Any, **named: Any) -> Any:
        read(*arguments, **named)
        raise _LineRead

    # Before the script is loaded, which imports the function by its name.
    for module in (cli, runs):
        monkeypatch.setattr(module, "parse_options", stop_when_read)
    main = load_script(script).main
    wrong = []
    for command in COMMANDS:
        if command.script != script:
            continue
        # The runs and files that these name do not exist here.
        arguments = _without(command.words[2:], "--resume", "--config")
        try:
            main(arguments)
        except (_LineRead, SystemExit):
            # A script exits after its --help; what it cannot read is a UserError.
            continue
        except UserError as error:
            wrong.append(f"{command}: {error}")
        else:
            wrong.append(f"{command}: ended before its command line was read")
    assert not wrong, "\n".join(wrong)


def _without(words: tuple[str, ...], *options: str) -> list[str]:
    return [
        word
        for word, before in zip(words, ("", *words), strict=False)
        if word not in options and before not in options
    ]


# -- the slow part ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("documented"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page", PAGES_WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_the_commands_of_a_page_run(
    page: Path,
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    short_games: None,
    record_property: Callable[[str, object], None],
) -> None:
    """Runs a page from top to bottom in one directory, so that runs of one command serve the next.

    The files that pages take for granted, such as a folder of images, are there from the start.
    """
    place = tmp_path / "work"
    shutil.copytree(workspace, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = set(sys.modules)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    failures = []
    for block in blocks(page):
        if block.language == "python":
            record_property("ran", str(block))
            with _reported(failures, str(block)):
                _run_python(block, namespace)
        for command in commands(block) if block.language == "sh" else []:
            reason = reason_to_skip(command)
            kind = "checked" if _installs(command) else "ran"
            record_property("skipped" if reason else kind, f"{command} ({reason})")
            if not reason:
                with _reported(failures, str(command)):
                    _run(command, monkeypatch)
    for name in set(sys.modules) - before:
        if (place / f"{name}.py").exists():
            del sys.modules[name]
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)


@pytest.fixture
def short_games(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends games of evaluations and films early, and keeps torch's number of threads."""
    import dataclasses

    from envs.protocol import PROTOCOLS

    for name, protocol in PROTOCOLS.items():
        monkeypatch.setitem(PROTOCOLS, name, dataclasses.replace(protocol, max_episode_steps=40))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@contextlib.contextmanager
def _reported(failures: list[str], what: str) -> Iterator[None]:
    """Notes an exception, so that the rest of the page is run, too."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (Exception, SystemExit) as error:
        if not isinstance(error, SystemExit) or error.code:
            failures.append(f"{what}\n    {type(error).__name__}: {error}")


def _run_python(block: Block, namespace: dict[str, Any]) -> None:
    text = re.sub(r"(\.learn\()[\d_]+", r"\g<1>64", block.text)
    text = re.sub(r"((?:buffer_size|learning_starts|n_steps)=)[\d_]+", r"\g<1>32", text)
    text = re.sub(r"((?:STEPS|train_frames|test_frames) ?= ?)[\d_]+", r"\g<1>100", text)
    if block.title:
        Path(block.title).write_text(text)
        return
    exec(compile(text, str(block), "exec"), namespace)


def _run(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command.words
    if command.script == "benchmark":
        _measure_once(words[2:])
    elif command.script:
        _run_script(command.script, list(words[2:]), monkeypatch)
    elif words[:2] == ("python", "-c"):
        exec(words[2], {})
    elif _installs(command):
        _check_installation(words)
    elif words[1:2] == ("tests/support/interval_coverage.py",):
        from support import interval_coverage

        simulate = interval_coverage.simulate
        monkeypatch.setattr(interval_coverage, "simulate", lambda: simulate(20, 2))
        Path(words[2]).parent.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(sys, "argv", list(words[1:]))
        interval_coverage.main()
    elif words[0] == "python" and words[1].endswith(".py"):
        _call([sys.executable, *words[1:]], None)
    elif command.module == "pytest":
        _call([sys.executable, *words[1:], "--collect-only", "-q", "-n0"], ROOT)
    elif words[0] == "tensorboard":
        _call([sys.executable, "-m", "tensorboard.main", *words[1:], "--inspect"], None)
    elif words[0] == "wandb":
        raise AssertionError("a command of wandb: say why it is skipped, or how it is run")
    elif command.module:
        arguments = shorten(words[3:], SHORT.get(command.module, {}))
        _call([sys.executable, "-m", command.module, *arguments], None)
    else:
        raise AssertionError("no way to run it")


@functools.cache
def _measure_once(arguments: tuple[str, ...]) -> None:
    """Runs a benchmark, which starts many processes and leaves nothing for later commands."""
    options = SHORT["gpu suite" if "--suite" in arguments else "benchmark"]
    load_script("benchmark").main(shorten(arguments, options))


def _run_script(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    extends = {"--total-steps", "--epochs", "--retry"} & set(arguments)
    launches = script in ("compare_encoders", "search_hyperparameters")
    if "--resume" in arguments and not launches and not extends:
        as_killed(Path(arguments[arguments.index("--resume") + 1]))
    module = load_script(script)
    if launches:
        from support.study_files import InlineLauncher

        monkeypatch.setattr(module, "make_launcher", lambda *_: InlineLauncher())
    module.main(shorten(arguments, SHORT[script]))


def _installs(command: Command) -> bool:
    return command.words[0] == "pip" or command.module == "pip"


def _call(words: list[str], directory: Path | None) -> None:
    result = subprocess.run(words, cwd=directory, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-2000:]


def _check_installation(words: tuple[str, ...]) -> None:
    """An installation names this project, and extras that it has."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    what = words[-1]
    named = re.fullmatch(r"(?:\.|rlcnn)(?:\[([\w,]+)\])?", what)
    if named is None:
        assert words[-2] == "install", "expected one package"
        return
    extras = set((named[1] or "").split(",")) - {""}
    assert extras <= set(project["optional-dependencies"]), what
