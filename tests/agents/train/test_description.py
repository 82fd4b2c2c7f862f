"""What a training prints of itself at its start and its end."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from support.agent_runs import PPO
from support.tiny_agents import TINY

from agents.config import TrainConfig
from agents.evaluate.evaluation import Evaluation
from agents.train.builder import build_agent, make_train_env
from agents.train.description import describe_score, describe_training, next_commands
from agents.train.training import resume, train
from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory

RESULT = Evaluation([12.0, 13.0], [100, 100], 0, {})


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("ALE/Pong-v5", "random play -20.7, human 14.6 (published)"),
        ("ALE/AirRaid-v5", None),
        ("support.games:Signals-v0", None),
        ("CartPole-v1", None),
    ],
)
def test_a_score_stands_beside_random_and_human_play_where_they_are_known(
    env: str, expected: str | None
) -> None:
    facts = dict(describe_score(RESULT, replace(TINY, env=env)))
    assert facts["mean return"] == "12.50 (std 0.71, 2 games)"
    assert facts.get("compare") == expected
    for change in ({"env_kwargs": {"mode": 1}}, {"env_wrapper": ("a:B",)}, {"obs_key": "image"}):
        changed = replace(TINY, env=env, **change)
        assert "compare" not in dict(describe_score(RESULT, changed))


@pytest.mark.parametrize("algo", ["ppo", "dqn"])
def test_the_start_names_all_that_decides_the_result(algo: str) -> None:
    config = replace(TINY, env="ALE/Pong-v5", algo=algo, num_envs=1, device="cpu", encoder="nature")
    config = replace(config, obs_size=84, frame_stack=4).resolve()
    with closing(make_train_env(config)) as venv:
        facts = dict(describe_training(config, build_agent(config, venv)))
    assert facts["environment"] == "ALE/Pong-v5, classic protocol, 1 environment"
    assert facts["observation"] == "4x84x84 (4 grey frames)"
    start = "nature, features_dim 16, 128,176 parameters, train from random weights"
    assert facts["encoder"] == start
    assert facts["algorithm"].startswith(f"{algo.upper()}, preset fast, ")
    assert facts["device"].startswith(f"cpu, {config.precision}, ")
    assert facts["storage"].startswith("84x84 pixels of each frame: ")
    assert facts["storage"].endswith("B")
    assert all(len(label) <= 11 for label in facts)


def test_a_training_tells_its_start_its_evaluations_and_its_end(tmp_path: Path) -> None:
    said = io.StringIO()
    run = train(PPO, tmp_path / "run", console=Console(file=said, width=300))
    lines = said.getvalue().splitlines()
    assert lines[0] == f"run:         {run}"
    assert lines[1] == "environment: support.games:Signals-v0, 2 environments"
    labels = [line.split(":")[0] for line in lines]
    evaluated = [int(label[5:]) for label in labels if label.startswith("step ")]
    assert evaluated == [112, 208, 304, 320]
    assert all(", 3 games)" in line for line in lines if line.startswith("step "))
    end = labels[labels.index("mean return") :]
    assert end == ["mean return", "run", "checkpoint", "watch", "evaluate", "extend", "TensorBoard"]
    assert Path(lines[labels.index("watch")].split()[1]).exists()
    assert "protocol" not in said.getvalue()
    # The command is right: half of its steps are those that were done.
    assert dict(next_commands(PPO, RunDirectory.open(run)))["extend"].endswith("--total-steps 640")


def test_a_refused_run_leaves_no_directory_and_a_resumed_one_is_named_first(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError):
        train(replace(PPO, weights="missing.pth"), tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()
    said = io.StringIO()
    with pytest.raises(UserError, match="is done"):
        resume(whole["ppo"], console=Console(file=said, width=300))
    assert said.getvalue() == ""


def test_in_a_pipe_every_line_fits_and_nothing_moves_the_cursor(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    options = {"env": "support.games:Signals-v0", "total-steps": 32, "num-envs": 2}
    options |= {"ppo.n-steps": 8, "ppo.batch-size": 8, "eval-episodes": 2, "track": "disabled"}
    command = [sys.executable, str(root / "scripts" / "train_agent.py")]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(
        [*command, "--obs-size", "36", "--encoder", "lenet", "--run-dir", "run"],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": f"{root}:{root / 'tests'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "run:         run"
    assert any(line.startswith("step 32: mean return ") for line in lines)
    assert "extend:      python " in done.stderr
    own = [line for line in lines if str(root) not in line and not line.startswith("note:")]
    assert max(map(len, own)) <= 80


def test_defaults_fit_an_unusual_configuration() -> None:
    """Options of an encoder, and one that is frozen."""
    config = TrainConfig(
        env="ALE/Pong-v5",
        num_envs=1,
        encoder_options={"features_dim": 8},
        mode="frozen",
        device="cpu",
        obs="rgb",
        protocol="sticky",
    ).resolve()
    with closing(make_train_env(config)) as venv:
        agent = build_agent(config, venv)
    facts = dict(describe_training(config, agent))
    assert facts["environment"] == "ALE/Pong-v5, sticky protocol, 1 environment"
    changed = replace(config, env_kwargs={"mode": 1}, env_wrapper=("a:B", "a:C"))
    assert dict(describe_training(changed, agent))["environment"] == (
        "ALE/Pong-v5, mode 1, a:B, a:C, sticky protocol, 1 environment"
    )
    assert facts["observation"] == "12x84x84 (4 rgb frames)"
    assert facts["encoder"].startswith("nature, features_dim 8, ")
    assert facts["encoder"].endswith("parameters, frozen random weights")
    assert " features of the frozen encoder " in facts["storage"]
