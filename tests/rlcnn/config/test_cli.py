"""What every script does with its arguments, its environment and its output."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from agents.config import TrainConfig
from envs.errors import UserError
from rlcnn.config.cli import given_value, parse_options
from rlcnn.config.fields import Arg, expand_home
from rlcnn.config.script import PIPE_CLOSED, USER_ERROR


@dataclass(frozen=True)
class Options:
    """Options of every type that holds a path."""

    run_dir: Path | None = None
    data: str = ""
    arms: tuple[str, ...] = ()
    track: str = "offline"


@dataclass(frozen=True)
class Training(TrainConfig):
    """A training and where it is written to."""

    run_dir: Path | None = None


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOME", "/home/me")
    return "/home/me"


@pytest.mark.parametrize(
    "argument, expanded",
    [
        ("--run-dir=~/x", "--run-dir=/home/me/x"),
        ("~", "/home/me"),
        ("folder:~/x", "folder:/home/me/x"),
        ("--data=folder:~/x", "--data=folder:/home/me/x"),
        ("frozen:impala,width=2@~/w.pth", "frozen:impala,width=2@/home/me/w.pth"),
        ("~/a,~/b", "/home/me/a,/home/me/b"),
        # A file's name may hold the sign.
        ("a~/b", "a~/b"),
        ("./~/x", "./~/x"),
        ("notes~", "notes~"),
    ],
)
def test_a_path_in_an_argument_may_begin_at_home(home: str, argument: str, expanded: str) -> None:
    assert expand_home(argument) == expanded


def test_options_of_every_type_hold_the_expanded_path(home: str) -> None:
    given = ["--run-dir=~/run", "--data=folder:~/x", "--arms", "frozen:~/a", "~/b"]
    options = parse_options(Options, given)
    assert options.run_dir == Path("/home/me/run")
    assert options.data == "folder:/home/me/x"
    assert options.arms == ("frozen:/home/me/a", "/home/me/b")
    # Read before the others, since it says what their defaults are.
    assert given_value(["--config=~/c.json"], "--config") == "/home/me/c.json"


@pytest.mark.parametrize(
    "variables, mode",
    [
        ({}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
        ({"WANDB_MODE": "online"}, "online"),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "nonsense"}, "offline"),
        ({"WANDB_DISABLED": "true"}, "disabled"),
        ({"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, "disabled"),
        ({"WANDB_DISABLED": "false"}, "offline"),
    ],
)
def test_the_environment_says_the_default_of_track(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], mode: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert parse_options(Options, [], Options()).track == mode
    assert parse_options(Options, ["--track", "online"], Options()).track == "online"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "from rlcnn.config.script import run_script\n"
        "run_script(lambda a: print('line\\n' * 100_000))"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as script:
        assert script.stdout is not None
        assert script.stderr is not None
        assert script.stdout.readline() == b"line\n"
        script.stdout.close()
        assert script.stderr.read() == b""
    assert script.returncode == PIPE_CLOSED


# Processes of their own cost seconds each.
@pytest.mark.slow
@pytest.mark.parametrize(
    "end, status", [("pass", 0), ("raise UserError('no')", USER_ERROR)], ids=["done", "refused"]
)
def test_a_run_goes_on_when_the_reader_of_its_progress_leaves(
    end: str, status: int, tmp_path: Path
) -> None:
    code = f"""
import pathlib, sys
from rlcnn.config.script import run_script
from envs.errors import UserError
from rlcnn.runs.progress import make_console
def main(arguments):
    console = make_console()
    console.print("first")
    sys.stdin.readline()
    for _ in range(3):
        console.print("unread")
    pathlib.Path(arguments[0]).touch()
    {end}
run_script(main)
"""
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "saved")],
        cwd=root,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as script:
        assert script.stdin is not None
        assert script.stderr is not None
        assert script.stderr.readline() == b"first\n"
        script.stderr.close()
        script.stdin.write(b"go on\n")
        script.stdin.close()
    assert (tmp_path / "saved").exists()
    assert script.returncode == status


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">/dev/full", "error: cannot write the output: No space left on device\n"),
        pytest.param("2>/dev/full >/dev/full", "", marks=pytest.mark.slow),
        pytest.param("2>/dev/full >&-", "", marks=pytest.mark.slow),
        pytest.param(">&- 2>&-", "", marks=pytest.mark.slow),
    ],
)
def test_output_that_cannot_be_written_costs_nothing_but_the_output(
    redirection: str, said: str, tmp_path: Path
) -> None:
    code = f"""
import pathlib, sys
from rlcnn.config.script import run_script
from rlcnn.runs.progress import make_console
def main(arguments):
    make_console().print("progress")
    print("result\\n" * 10_000)
    print("more", flush=True)
    pathlib.Path({str(tmp_path / "saved")!r}).touch()
run_script(main)
"""
    command = f"{sys.executable} -c {shlex.quote(code)} {redirection}"
    root = Path(__file__).parents[3]
    done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True)
    assert (tmp_path / "saved").exists()
    assert done.stderr.removeprefix("progress\n") == said
    assert done.returncode == (USER_ERROR if ">/dev/full" in redirection.split() else 0)


@pytest.mark.parametrize(
    "arguments, value",
    [
        ("--suite-scale tiny", "tiny"),
        ("--suite-scale=tiny", "tiny"),
        ("--suite_scale tiny", "tiny"),
        ("--suite_scale=a_b=c", "a_b=c"),
        ("--suite-scale full --suite-scale tiny", "tiny"),
        ("--suite-scale --json x", None),
        ("--suite-scale", None),
        ("--suite tiny", None),
    ],
)
def test_an_options_value_is_the_last_one_given(arguments: str, value: str | None) -> None:
    assert given_value(arguments.split(), "--suite-scale") == value


@pytest.mark.parametrize("arguments", [["--suite-scale", ""], ["--suite-scale="]], ids=str)
def test_an_empty_value_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UserError, match=r'^--suite-scale takes a value: "" is empty$'):
        given_value(arguments, "--suite-scale")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--no-cuda", 'Did you mean "--device cpu"?'),
        ("--e_clip=0.2", 'Did you mean "--ppo.clip-range"?'),
        ("--stack=4", 'Did you mean "--frame-stack"?'),
        ("--no-track", 'Did you mean "--track disabled"?'),
        ("--multi-step", 'Did you mean "--dqn.n-steps"?'),
        ("--max_epochs", 'Did you mean "--total-steps"?'),
        ("--save_every_sec", 'Did you mean "--checkpoint-every"?'),
        ("--num_actors=16", 'Did you mean "--num-envs"?'),
        ("\N{EM DASH}total-steps", 'Did you mean "--total-steps"?'),
        ("-total-steps", 'Did you mean "--total-steps"?'),
        ("task=Pong", 'unexpected argument "task=Pong". Did you mean "--env"?'),
        ("--save-replay=0", "--save-replay takes no value; it is --save-replay or --no-save-repl"),
        # A part of too many names.
        ("--eps", 'unknown option "--eps".'),
        ("--version", 'unknown option "--version".'),
    ],
)
def test_other_spellings_and_no_hint_that_leads_astray(option: str, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_options(TrainConfig, [option], TrainConfig())
    assert said in str(refusal.value)
    assert "?" in said or "Did you mean" not in str(refusal.value)


@dataclass(frozen=True)
class Study:
    """Options whose values are written alike."""

    run_dir: Annotated[Path, Arg(positional=True)]
    num_envs: int = 1
    workers: int = 1
    games: str = "Pong"
    seeds: int = 5
    arms: tuple[str, ...] = ()
    save: bool = True
    encoder: Literal["nature", "lenet"] = "nature"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run --num-envs 1 --seeds 0 1", '"1": --seeds takes how many, which count up from --seed'),
        ("run --workers 1 --games Pong 1", '"1": --games takes one value, separated by commas'),
        ("run --num-envs 1 --workers=1 1", '"1": --workers takes one value'),
        ("run --save 1 --num-envs 1", '"1": --save takes no value; it is --save or --no-save'),
        ("run --arms 1 2 --num-envs 2 1", '"1": --num-envs takes one value'),
        ("1 1 --num-envs 1", 'unexpected argument "1"'),
        ("--num-envs 1 1 1", '"1": --num-envs takes one value'),
    ],
)
def test_a_value_too_many_is_blamed_on_the_option_before_it(arguments: str, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_options(Study, arguments.split())
    assert str(refusal.value).startswith("unexpected argument")
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--seeds 3", "RUN_DIR is missing; --help describes it"),
        ("run --seeds --arms a", "--seeds takes a value: none given"),
        ("run --num-envs 2 --seeds 1.5", '--seeds "1.5" is not a whole number.'),
        ("run --encoder lenett", 'expected one of nature, lenet. Did you mean "lenet"?'),
    ],
)
def test_the_first_thing_wrong_is_named(arguments: str, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_options(Study, arguments.split())
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--total-steps", "1,000,000"],
            '--total-steps "1,000,000" is not a whole number. Did you mean "1000000"?',
        ),
        (["--track"], '--track takes a value: none given. Did you mean "--track online"?'),
        (["--track", "True"], 'Did you mean "--track online"?'),
        (["--track=false"], 'Did you mean "--track disabled"?'),
        (["--track", "offlin"], 'Did you mean "offline"?'),
        (["--compile", "yes"], 'Did you mean "--compile on"?'),
        (["--overlap=False"], 'Did you mean "--overlap off"?'),
        (["--precision", "32"], 'Did you mean "--precision fp32"?'),
        (["--obs", "Color"], 'Did you mean "--obs rgb"?'),
        (["--preset=atari"], "expected one of fast, zoo, dqn-dopamine, double-dqn, "),
        (["--algo", "rainbow"], "expected one of ppo, dqn, pqn."),
        (["--run-dir", ""], '--run-dir takes a value: "" is empty'),
        (["--run-dir="], '--run-dir takes a value: "" is empty'),
        (["--total-steps", "1M"], 'is not a whole number. Did you mean "1e6"?'),
        (["--total-steps=1.5k"], 'Did you mean "1.5e3"?'),
        (["--total-steps", "1,000"], 'Did you mean "1000"?'),
        (["--total-steps", "1.0"], 'Did you mean "1"?'),
        (
            ["--total-steps", "1'000"],
            '--total-steps "1\'000" is not a whole number. Did you mean "1000"?',
        ),
        (["--total-steps", "1e-400"], '--total-steps "1e-400" is not a whole number.'),
        (["--ppo.gamma", "'0.9'"], "--ppo.gamma \"'0.9'\" is not a number"),
        (["--ppo.target-kl", "''"], "--ppo.target-kl \"''\" is neither a number nor None"),
    ],
    ids=str,
)
def test_a_value_is_quoted_whole_and_a_switch_becomes_a_choice(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(UserError) as refusal:
        parse_options(Training, arguments, Training())
    assert said in str(refusal.value)
    # A hint is the last thing said: there is none where none is expected.
    assert ("Did you mean" in str(refusal.value)) == ("Did you mean" in said)
    assert os.environ["COLUMNS"] == "80"
