"""User errors give one clear line and change nothing that was saved."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.script_runs import ROLLOUT, TINY, metrics, read, run_script

from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory

Script = Callable[..., None]

# Games that are no pixel games, or not for discrete agents: "strange:Continuous-v0".
STRANGE = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Strange(gym.Env):
    observation_space = spaces.Box(0, 255, (40, 40, 3), np.uint8)

    def __init__(self, action_space):
        self.action_space = action_space


def register(name, action_space):
    gym.register(name, lambda: Strange(action_space))


register("Continuous-v0", spaces.Box(-1, 1, (2,)))
register("Several-v0", spaces.MultiDiscrete([3, 3]))
"""


def contents(run: Path) -> dict[Path, bytes]:
    """All files of a run, including the record of attempts."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def refused(script: Script, *arguments: object) -> str:
    with pytest.raises(UserError) as error:
        script(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# Arguments, and what the line must say.
BAD_OPTIONS = [
    ("--env ALE/Pogn-v5", 'unknown Atari game "ALE/Pogn-v5"', 'Did you mean "ALE/Pong-v5"?'),
    ("--env PongNoFrameskip-v4", 'Did you mean "ALE/Pong-v5"?'),
    ("--env CartPoll-v1", 'unknown environment "CartPoll-v1"', '"CartPole-v1"'),
    ("--env CartPole-v1", '"CartPole-v1" has the observations', "expected images"),
    (
        "--env nomodule:Pong-v5",
        'cannot import "nomodule"',
        "if it is yours, start in its directory",
    ),
    ("--env=", '--env takes a value: "" is empty'),
    ("--weights=", '--weights takes a value: "" is empty'),
    ("--resume=", '--resume takes a value: "" is empty'),
    ("--device 1", 'Did you mean "cuda:1"?'),
    ("--env strange:Continuous-v0", "has the actions Box", "expected a Discrete space"),
    ("--env strange:Several-v0", "has the actions MultiDiscrete", "expected a Discrete space"),
    ("--encoder natur", '--encoder "natur" is unknown', 'Did you mean "nature"?'),
    (
        "--encoder resnet19:layer2",
        '--encoder "resnet19:layer2" is unknown',
        'Did you mean "resnet1',
    ),
    ("--encoder resnet18:layr2", 'has no node "layr2"', 'Did you mean "layer2"?'),
    ("--weights nothing.pth", '"nothing.pth" does not exist'),
    ("--weights imagenet", 'no ImageNet weights for encoder "nature"'),
    ("--unfreeze-from trunk", "--unfreeze-from trunk is for --mode finetune"),
    ("--mode frozen --unfreeze-at-step 5", "--unfreeze-at-step 5 is for --mode finetune"),
    ("--mode finetune --unfreeze-at-step 128", "is not reached before", "--total-steps 128"),
    (
        "--mode finetune --unfreeze-from trunk.cnv2",
        'encoder "nature" has no node "trunk.cnv2"',
        'Did you mean "trunk.conv2"?',
    ),
    ("--feature-dtype bf16", "--feature-dtype bf16 is for the features", "expected auto"),
    ("--feature-dtype fp8", '--feature-dtype "fp8" is unknown', "bf16"),
    ("--encoder-options widht 2 --encoder impala", '"widht"', 'Did you mean "width"?'),
    ("--encoder-options width 0 --encoder impala", "width must be a positive", "not 0"),
    ("--encoder-options width", '--encoder-options "width": expected pairs'),
    ("--env-kwargs wind nan", '--env-kwargs "wind nan": expected a finite number'),
    ("--env-kwargs wind 1e999", '--env-kwargs "wind inf": expected a finite number'),
    ("--env-kwargs size=12", '--env-kwargs "size=12": expected pairs'),
    ("--obs gray", '--obs "gray" is unknown', 'Did you mean "grey"?'),
    ("--obs-size 7", "7x7 pixels are too small", "Give --obs-size 36."),
    ("--preset zoo2", '--preset "zoo2" is unknown', 'Did you mean "zoo"?'),
    ("--total-stpes 5", 'unknown option "--total-stpes"', 'Did you mean "--total-steps"?'),
    ("--game Pong", 'unknown option "--game"', 'Did you mean "--env"?'),
    ("--env Catch-v0", 'If it is yours, name its module: "my_module:Catch-v0"'),
    (
        "--lr 0.1",
        'Did you mean "--ppo.learning-rate" or "--dqn.learning-rate" or "--pqn.learning-rate"?',
    ),
    ("--n-timesteps 5", 'Did you mean "--total-steps"?'),
    ("--total-timesteps 5", 'Did you mean "--total-steps"?'),
    ("--n-envs 5", 'Did you mean "--num-envs"?'),
    ("--env-id Pong", 'Did you mean "--env"?'),
    ("--num-steps 5", '"--ppo.n-steps" or "--pqn.n-steps"?'),
    ("--n-steps 5", '"--ppo.n-steps" or "--pqn.n-steps"?'),
    (
        "--batch-size 5",
        'Did you mean "--ppo.batch-size" or "--dqn.batch-size" or "--pqn.batch-size"?',
    ),
    ("--epochs 5", '"--ppo.n-epochs" or "--pqn.n-epochs"?'),
    ("--gamma 1", 'Did you mean "--dqn.gamma" or "--ppo.gamma" or "--pqn.gamma"?'),
    ("--gpu", 'Did you mean "--device cuda"?'),
    ("--cuda True", 'Did you mean "--device cuda"?'),
    ("--capture-video", 'Did you mean "--video-every"?'),
    ("--backbone impala", 'Did you mean "--encoder"?'),
    ("--wandb", 'Did you mean "--track online"?'),
    ("--no-track", 'Did you mean "--track disabled"?'),
    ("--logger csv", 'Did you mean "--track"?'),
    # A part of a name, and its plural.
    ("--wrapper a:B", 'Did you mean "--env-wrapper"?'),
    ("--wrappers a:B", 'Did you mean "--env-wrapper"?'),
    ("--eval 5", 'Did you mean "--eval-episodes" or "--eval-every"?'),
    ("--no-model", 'Did you mean "--no-log-model"?'),
    ("--ppo.clip 0.2", '"--ppo.clip-range" or "--ppo.clip-range-schedule" or "--ppo.clip-ran'),
    ("--env-args size 3", 'Did you mean "--env-kwargs"?'),
    ("--vec-env subproc", 'Did you mean "--env-workers"?'),
    ("--render-mode rgb_array", '"--env-kwargs render_mode rgb_array" or "--video-every"?'),
    ("--per", 'Did you mean "--dqn.prioritized"?'),
    ("--dueling", 'Did you mean "--dqn.head dueling"?'),
    # Misspelled, in another library's name or without its section.
    (
        "--num-minibatchs 4",
        'Did you mean "--ppo.batch-size" or "--dqn.batch-size" or "--pqn.batch-size"?',
    ),
    ("--gama 1", 'Did you mean "--dqn.gamma" or "--ppo.gamma" or "--pqn.gamma"?'),
    ("--env-wrapper a:B c:D", "takes one value; repeat the option: --env-wrapper c:D"),
    ("--env-wrapper a:B,c:D", "repeat the option, --env-wrapper a:B --env-wrapper c:D"),
    ("--exp-name x", 'Did you mean "--run-dir"?'),
    ("--save-freq 5", 'Did you mean "--checkpoint-every"?'),
    ("--weights IMAGENET1K_V1", 'Did you mean "imagenet"?'),
    ("--PPO.LR 0.1", 'Did you mean "--ppo.learning-rate"?'),
    ("--ppo.n-step 5", 'Did you mean "--ppo.n-steps"?'),
    ("5", 'unexpected argument "5"'),
    ("--total-steps", "--total-steps takes a value"),
    ("--total-steps many", '--total-steps "many" is not a whole number'),
    ("--num-envs 3000000000", "--num-envs 3000000000 must be at least 1 and at most 4096"),
    ("--obs-size 100000", "--obs-size 100000 must be at least 1 and at most 1024"),
    ("--num-threads 5000", "--num-threads 5000 must be at least 0 and at most 1024"),
    ("--ppo.learning-rate fast", '--ppo.learning-rate "fast" is not a number'),
    ("--ppo.learning-rate -1", "--ppo.learning-rate -1.0 must be at least 0"),
    ("--ppo.target-kl low", '--ppo.target-kl "low" is neither a number nor None'),
    ("--ppo.n-epochs 0", "--ppo.n-epochs 0 must be at least 1"),
    ("--ppo.batch-size 100", "batch_size 100 does not divide the rollout of 128", "is 128"),
    ("--ppo.batch-size 1", "batch_size 1 ", "2"),
    ("--algo dqn --dqn.exploration-fraction 0", "--dqn.exploration-fraction 0"),
    ("--algo dqn --num-envs 4 --dqn.buffer-size 2", "--dqn.buffer-size 2", "4"),
    ("--algo dqn --dqn.buffer-size 1000000000", "1,000,000,000 transitions needs", "GB"),
    ("--device gpu", 'unknown device "gpu"', 'Did you mean "cuda"?'),
    ("--device cuda:99", 'device "cuda:99" is not there', '"cpu"'),
    ("--config no.json", "no.json is not a file"),
    ("--config empty --preset zoo", "--config and --preset", "give one"),
    ("--resume empty", "is empty"),
    ("--resume none", "none does not exist"),
    ("--resume", "--resume takes a value"),
]


@pytest.mark.parametrize("case", BAD_OPTIONS, ids=lambda case: case[0])
def test_a_bad_option_is_one_line_that_names_it_and_what_was_expected(
    case: tuple[str, ...], train_agent: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange.py").write_text(STRANGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    options, *said = case
    message = refused(train_agent, *TINY, "--total-steps", ROLLOUT, *options.split())
    for part in said:
        assert part in message
    assert not (tmp_path / "runs").exists(), "refused before anything is written"


def test_an_option_like_no_other_gets_no_hint(train_agent: Script) -> None:
    # The second is a part of too many names.
    for name in ("--frobnicate", "--exploration", "-v"):
        assert refused(train_agent, name, "5") == f'unknown option "{name}".'


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(train_agent: Script) -> None:
    message = refused(train_agent, *TINY, "--device", "cuda")
    assert message == 'device "cuda" is not there: torch finds no CUDA device; try "cpu"'


def test_the_script_prints_one_line_and_fails(tmp_path: Path) -> None:
    (tmp_path / "strange.py").write_text(STRANGE)
    done = run_script("train_agent", "--env", "strange:Continuous-v0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: "Continuous-v0" has the actions Box')
    assert not (tmp_path / "runs").exists()


# -- where to write --------------------------------------------------------------------------------


def test_a_directory_that_holds_something_is_not_written_to(
    train_agent: Script, finished: tuple[Path, str]
) -> None:
    before = contents(finished[0])
    message = refused(train_agent, *TINY, "--total-steps", ROLLOUT, "--run-dir", finished[0])
    assert "exists and is not empty: choose another by --run-dir, or go on with it by" in message
    # As a shell takes it: the name has a space and brackets.
    assert shlex.split(message)[-2:] == ["--resume", str(finished[0])]
    assert contents(finished[0]) == before


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/run"])
def test_a_place_that_cannot_be_written_is_refused(
    place: str, train_agent: Script, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("kept")
    message = refused(train_agent, *TINY, "--total-steps", ROLLOUT, "--run-dir", tmp_path / place)
    assert str(tmp_path / place) in message
    assert (tmp_path / "file").read_text() == "kept"


# -- runs to resume --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, said",
    [
        ("--algo dqn", "--algo cannot change on a resume: the run has 'ppo', not 'dqn'"),
        ("--env ALE/Pong-v5", "--env cannot change on a resume"),
        ("--ppo.gamma 0.5", "--ppo.gamma cannot change on a resume: the run has 0.99, not 0.5"),
        ("--preset zoo", "--preset cannot change on a resume"),
        ("--run-dir elsewhere", "leave out --config and --run-dir"),
        ("--config config.json", "leave out --config and --run-dir"),
        ("--total-steps 0", "--total-steps 0 must be at least 1"),
        ("--device cuda:99", 'device "cuda:99" is not there'),
    ],
)
def test_a_resume_that_would_be_another_run_is_refused(
    options: str, said: str, train_agent: Script, finished: tuple[Path, str]
) -> None:
    before = contents(finished[0])
    assert said in refused(train_agent, "--resume", finished[0], *options.split())
    assert contents(finished[0]) == before


def test_a_run_that_is_done_names_a_length_that_extends_it(
    train_agent: Script, finished_copy: Path
) -> None:
    # Whole rollouts took more steps than were asked for.
    edit(finished_copy / "config.json", lambda config: config.update(total_steps=100))
    message = refused(train_agent, "--resume", finished_copy)
    assert message.endswith(f"Extend it with --total-steps {6 * ROLLOUT}")


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def garbled(file: Path) -> None:
    middle = file.stat().st_size // 2
    data = bytearray(file.read_bytes())
    data[middle] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.parametrize(
    "name, damage",
    [
        *itertools.product(
            ["config.json", "summary.json", "attempts.json", "policy", "state", "manifest"],
            [truncated, emptied, garbled],
        ),
        # The last row of a killed run may be half a row, or the only one.
        ("metrics.jsonl", garbled),
    ],
)
def test_a_damaged_run_is_refused_and_not_changed(
    name: str, damage: Callable[[Path], None], train_agent: Script, finished_copy: Path
) -> None:
    files = [*finished_copy.glob(f"{name}*"), *finished_copy.glob(f"checkpoints/*/{name}*")]
    assert files
    for file in files:
        damage(file)
    before = contents(finished_copy)
    options = ("--total-steps", 4 * ROLLOUT, "--track", "disabled")
    message = refused(train_agent, "--resume", finished_copy, *options)
    assert str(finished_copy) in message
    assert contents(finished_copy) == before


def test_an_older_checkpoint_serves_where_the_newest_is_damaged(
    train_agent: Script, finished_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    garbled(finished_copy / "checkpoints" / f"{3 * ROLLOUT:012d}" / "optimizer.pt")
    options = ("--total-steps", 4 * ROLLOUT, "--track", "disabled", "--eval-episodes", "0")
    train_agent("--resume", finished_copy, *options)
    said = capsys.readouterr().err
    assert "is skipped: the contents of optimizer.pt are corrupted" in said
    assert f"resuming from step {2 * ROLLOUT}" in said
    assert read(finished_copy / "summary.json")["steps"] == 4 * ROLLOUT
    steps = [row["step"] for row in metrics(finished_copy) if "time/fps" in row]
    assert steps == [ROLLOUT, 2 * ROLLOUT, 3 * ROLLOUT, 4 * ROLLOUT]


def test_a_configuration_of_another_algorithm_does_not_take_the_checkpoint(
    train_agent: Script, finished_copy: Path
) -> None:
    edit(finished_copy / "config.json", lambda config: config.update(algo="dqn"))
    before = contents(finished_copy)
    message = refused(train_agent, "--resume", finished_copy, "--total-steps", 4 * ROLLOUT)
    assert "is of algorithm 'ppo', not 'dqn'" in message
    assert contents(finished_copy) == before


def test_a_run_has_one_writer_at_a_time(train_agent: Script, finished_copy: Path) -> None:
    before = contents(finished_copy)
    with RunDirectory.open(finished_copy, write=True):
        message = refused(train_agent, "--resume", finished_copy, "--total-steps", 4 * ROLLOUT)
    assert "in use by another process" in message
    assert contents(finished_copy) == before


def test_a_loss_that_is_no_number_stops_the_run_and_spares_its_checkpoints(
    train_agent: Script, finished_copy: Path
) -> None:
    edit(finished_copy / "config.json", lambda config: config["ppo"].update(learning_rate=1e30))
    before = contents(finished_copy / "checkpoints")
    options = ("--total-steps", 100 * ROLLOUT, "--track", "disabled")
    assert "the loss became" in refused(train_agent, "--resume", finished_copy, *options)
    assert contents(finished_copy / "checkpoints") == before
    assert RunDirectory.open(finished_copy).latest_whole()[1] == []


# -- configurations --------------------------------------------------------------------------------


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = read(file)
    change(document["config"])
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"num_env": 8}, 'unknown option "num_env" in the configuration. Did you mean "num_envs"?'),
        ({"ppo": {"gama": 1}}, 'unknown option "ppo.gama" in the configuration.'),
        ({"ppo": [1]}, "ppo must be an object"),
        ({"num_envs": "8"}, "option num_envs in the configuration must be int, not '8'"),
        ({"total_steps": 1.5}, "option total_steps in the configuration must be int, not 1.5"),
        ({"save_replay": 1}, "option save_replay in the configuration must be bool, not 1"),
        ({"ppo": {"target_kl": "low"}}, "ppo.target_kl in the configuration must be a number or"),
        ({"algo": "a2c"}, '--algo "a2c" is unknown'),
        ({"preset": "zooo"}, '--preset "zooo" is unknown'),
        ({"seed": -1}, "--seed -1 must be at least 0"),
    ],
    ids=str,
)
def test_a_bad_configuration_file_is_one_line(
    changes: dict[str, Any],
    said: str,
    train_agent: Script,
    finished: tuple[Path, str],
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.json"
    shutil.copy(finished[0] / "config.json", file)
    edit(file, lambda config: config.update(changes))
    message = refused(train_agent, "--config", file, "--run-dir", tmp_path / "run")
    assert said in message
    assert str(file) in message
    assert not (tmp_path / "run").exists()


def test_a_configuration_file_of_something_else_is_one_line(
    train_agent: Script, finished: tuple[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "other.json").write_text("{}")
    message = refused(train_agent, "--config", tmp_path / "other.json")
    assert message.endswith(
        'other.json holds no configuration of an agent\'s training: "config" is missing'
    )
    (tmp_path / "other.json").write_text("{")
    assert "truncated or corrupted" in refused(train_agent, "--config", tmp_path / "other.json")
    message = refused(train_agent, "--config", finished[0])
    assert message.endswith(f'Did you mean "{finished[0] / "config.json"}"?')
