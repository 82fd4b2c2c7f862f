"""``--help`` of every script: what it imports, its groups, examples, widths and pipes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Annotated

import pytest
from annotated_types import Interval
from support.script_runs import ROOT, command, environment, load_script

from agents.config import TrainConfig
from rlcnn.config.cli import parse_options
from rlcnn.config.fields import registered_encoders
from rlcnn.config.options import list_options
from rlcnn.config.script import PIPE_CLOSED, USER_ERROR
from rlcnn.encoders import list_encoders

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
SLOW_TO_IMPORT = {
    *("torch", "torchvision", "stable_baselines3", "gymnasium", "ale_py", "cv2"),
    *("wandb", "sklearn", "scipy", "matplotlib", "jinja2", "optuna", "sqlalchemy"),
}
# Runs a script and prints which packages it imported.
PROBE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    packages = {name.partition(".")[0] for name in sys.modules}
    print("STATUS", end.code, *packages)
"""


@pytest.mark.parametrize(
    ("script", "option", "status"),
    [*((script, "--help", 0) for script in SCRIPTS), ("train_agent", "--nonsense", USER_ERROR)],
)
def test_help_imports_nothing_slow(script: str, option: str, status: int) -> None:
    path = ROOT / "scripts" / f"{script}.py"
    run = [sys.executable, "-c", PROBE, path, option]
    output = subprocess.run(run, check=True, env=environment(), capture_output=True, text=True)
    last = output.stdout.splitlines()[-1].split()
    assert last[:2] == ["STATUS", str(status)], output.stderr
    assert not SLOW_TO_IMPORT & set(last)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_every_width_and_begins_with_three_examples_that_are_right(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load_script(script)
    for width in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit):
            module.main(["--help"])
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= width
    before_groups = re.split(r"(?m)^\w.*:\n  [-A-Z]", text)[0]
    examples = re.findall(r"(?m)^  python (scripts/.*)$", before_groups)
    assert len(examples) == 3
    for example in examples:
        path, *arguments = shlex.split(example)
        assert path == f"scripts/{script}.py"
        # Refuses unknown options and values.
        parse_options(module.Options, arguments)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_is_explained_in_sentences(script: str) -> None:
    for option in list_options(load_script(script).Options):
        # "cuda:1 ..." stands for more devices.
        assert option.help.endswith("."), option.name
        if option.kind is bool and option.arg.negatable:
            assert option.help.startswith("Whether "), option.name
        # Words that refer to another option's explanation, which may stand far above.
        assert not re.search("The same|(that noise|after that)\\b", option.help), option.name


def test_help_survives_a_reader_that_has_left() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = command("train_agent", "--help")
    done = subprocess.run(run, env=environment(), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == PIPE_CLOSED


@dataclass(frozen=True)
class Rainbow:
    """Hyperparameters of Rainbow."""

    atoms: Annotated[int, Interval(ge=2)] = 51
    """Values of a return's distribution."""


@dataclass(frozen=True)
class WithRainbow(TrainConfig):
    """A training with one more algorithm."""

    rainbow: Rainbow = field(default_factory=Rainbow)


def groups(text: str) -> list[str]:
    """The headings of a help text's groups."""
    return re.findall(r"(?m)^(\w.*):\n  [-A-Z]", text)


def test_options_are_grouped_and_a_new_algorithm_heads_a_group(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse_options(WithRainbow, ["--help"], WithRainbow())
    text = capsys.readouterr().out
    assert groups(text) == [
        "Run",
        "Environment",
        "Encoder",
        "Evaluation and films",
        "Tracking",
        "Device and speed",
        "Hyperparameters of PPO, under stable-baselines3's names",
        "Hyperparameters of DQN, under stable-baselines3's names; steps are agent steps",
        "Hyperparameters of PQN (Gallici et al. 2024); steps are agent steps",
        "Hyperparameters of Rainbow",
    ]
    assert "--rainbow.atoms INT       Values of a return's distribution. (default: 51)" in text


@pytest.mark.parametrize(
    ("arguments", "option", "default"),
    [
        ([], "--total-steps INT", "2000000"),
        ([], "--protocol {classic,sticky}", "classic"),
        (["--algo", "dqn"], "--algo {ppo,dqn,pqn}", "dqn"),
        (["--algo", "dqn"], "--num-envs INT", "8"),
        (["--preset=zoo", "--seed", "1"], "--total-steps INT", "10000000"),
    ],
)
def test_help_shows_choices_and_the_defaults_of_the_preset(
    arguments: list[str], option: str, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        # In the middle of a command line, too.
        load_script("train_agent").main([*arguments, "--help", "--env", "ALE/Krull-v5"])
    text = capsys.readouterr().out
    assert re.search(
        rf"  {re.escape(option)}\s[^(]*(\(\w+ \d+\)[^(]*)*\(default: {default}\)", text
    )


def test_help_lists_the_registered_encoders() -> None:
    assert registered_encoders() == list_encoders()
