"""``compare_encoders.py`` from the command line: refusals, cost, and a killed study."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.script_runs import (
    GAMES,
    ROLLOUT,
    TINY,
    assert_went_on,
    load_script,
    run_script,
    signal_when_begun,
)
from support.study_pages import text_of

from agents.config import TrainConfig
from agents.study.arms import parse_arm
from agents.study.plan import StudyPlan
from agents.study.results import PLAN
from agents.study.runner import RANDOM
from envs.errors import UserError
from rlcnn.encoders import create_encoder
from rlcnn.weights.load import save_encoder

Script = Callable[..., None]

# TINY but for its game, which a study names otherwise.
OPTIONS = [*TINY[2:], "--total-steps", str(2 * ROLLOUT), "--encoder", "lenet"]
GAME = ["--games", "Breakout"]
ARMS = ["--arms", "scratch", "frozen-random"]


def refused(script: Script, *arguments: object) -> str:
    with pytest.raises(UserError) as error:
        script(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "given, expected",
    [
        ([], (26, 1, 26, 0, ())),
        (["--eval-every", "128"], (128, 1, 128, 0, ())),
        (["--eval-every", "0", "--video_every=64"], (0, 1, 0, 64, ())),
        # Equal to the preset's default, and given.
        (["--ppo.gamma", "0.99", "--num-envs", "32"], (26, 1, 26, 0, ("num_envs", "ppo.gamma"))),
    ],
)
def test_evaluations_and_options_that_equal_defaults_count_if_they_are_given(
    given: list[str], expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[StudyPlan] = []
    monkeypatch.setattr("agents.study.runner.run_study", lambda plan, *_, **__: plans.append(plan))
    lengths = ["--total-steps", "256", "--eval-episodes", "1"]
    arms = ["--arms", "scratch", "scratch::preset=pqn"]
    load_script("compare_encoders").main([*GAME, *arms, *lengths, *given])
    (plan,) = plans
    base = plan.base
    found = (base.eval_every, base.interim_episodes, base.interim_max_steps, base.video_every)
    assert (*found, plan.explicit) == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([*ARMS], "--games names no game"),
        (["--games", "Breakot", *ARMS], 'Did you mean "ALE/Breakout-v5"?'),
        ([*GAME], "expected at least 2 arms"),
        ([*GAME, "--arms", "scratch"], "--arms scratch leaves nothing to compare"),
        ([*GAME, "--arms", "scratch", "frozn:imagenet"], 'Did you mean "frozen:imagenet"?'),
        ([*GAME, "--arms", "scratch", "scratch:natur"], 'Did you mean "nature"?'),
        ([*GAME, *ARMS, "--seeds", "1"], "--seeds 1 cannot show chance"),
        ([*GAME, *ARMS, "--seeds", "0"], "--seeds 0"),
        ([*GAME, *ARMS, "--seeds", "0", "7"], "--seeds takes how many, which count up from --seed"),
        ([*GAME, *ARMS, "--seeds", "-3"], "--seeds -3 must be at least 2"),
        ([*GAME, *ARMS, "--workers", "-1"], "--workers -1 must be at least 0"),
        ([*GAME, *ARMS, "--launcher", "slurm"], "expected one of local, ray"),
        ([*GAME, *ARMS, "--mode", "frozen"], 'unknown option "--mode"'),
        ([*GAME, *ARMS, "--env", "ALE/Pong-v5"], 'unknown option "--env". Did you mean "--games"?'),
        ([*GAME, *ARMS, "--sedes", "5"], 'Did you mean "--seeds"?'),
        ([*GAME, *ARMS, "--resume", "nowhere"], "holds no study.json"),
        ([*GAME, *ARMS, "--ppo.gamma", "2"], "--ppo.gamma 2"),
    ],
)
def test_bad_options_are_one_line(
    compare_encoders: Script,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(compare_encoders, *OPTIONS, *arguments)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_are_refused_before_anything_is_trained(
    compare_encoders: Script, tmp_path: Path
) -> None:
    weights = tmp_path / "impala.safetensors"
    save_encoder(create_encoder("impala", (4, 44, 44)), weights)
    study = tmp_path / "study"
    arms = ["--arms", "scratch", f"frozen:{weights}"]
    message = refused(compare_encoders, *OPTIONS, *GAME, *arms, "--study-dir", study)
    assert '--arms "frozen:impala"' in message
    assert 'encoder "impala"' in message
    assert not study.exists()


def test_ray_that_is_not_installed_is_one_line(compare_encoders: Script, tmp_path: Path) -> None:
    try:
        import ray  # noqa: F401
    except ImportError:
        place = ["--launcher", "ray", "--study-dir", tmp_path / "study"]
        assert 'pip install "rlcnn[ray]"' in refused(
            compare_encoders, *OPTIONS, *GAME, *ARMS, *place
        )
    else:
        pytest.skip("Ray is installed")


@pytest.mark.slow
def test_a_dry_run_measures_prints_the_cost_and_leaves_nothing(
    compare_encoders: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    compare_encoders(*OPTIONS, *GAME, *ARMS, "--study-dir", study, "--dry-run")
    said = capsys.readouterr().err
    assert "1 game x 2 arms x 5 seeds = 10 runs, 2,560 agent steps" in said
    assert "scratch: " in said
    assert "to do: 10 runs, 2,560 agent steps" in said
    assert not study.exists()


def test_any_machine_makes_the_report_of_a_study_that_a_cluster_began(
    compare_encoders: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A cluster leaves the precision to each run's device: "auto", which nothing may settle here.
    base = TrainConfig(track="disabled", precision="auto")
    arms = (parse_arm("scratch"), parse_arm("frozen-random"))
    plan = StudyPlan(("ALE/Pong-v5",), arms, (0, 1), base)
    (tmp_path / PLAN).write_text(json.dumps({"plan": plan.to_json(), "command": ["once"]}))
    (tmp_path / RANDOM).write_text(json.dumps({"ALE/Pong-v5": [-21.0, -20.0]}))
    with pytest.raises(SystemExit, match="1"):
        compare_encoders("--resume", tmp_path, "--report-only")
    assert "no verdict: there is no verdict before Pong, scratch, seed 0" in capsys.readouterr().err
    assert "0 of 4 runs done, 4 not finished" in text_of((tmp_path / "report.html").read_text())


LONG = [
    *("--games", "support.games:Signals-v0", *ARMS, "--encoder", "lenet", "--seeds", "2"),
    *("--total-steps", "6000", "--checkpoint-every", "200", "--num-envs", "2"),
    *("--obs-size", "36", "--frame-stack", "2", "--precision", "fp32", "--compile", "off"),
    *("--ppo.n-steps", "8", "--ppo.batch-size", "8", "--ppo.n-epochs", "1"),
    *("--eval-every", "0", "--eval-episodes", "2", "--video-every", "0", "--track", "disabled"),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_study_that_was_killed_or_stopped_continues(
    number: signal.Signals, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    arguments = [*LONG, "--study-dir", study, "--workers", "2"]
    run = signal_when_begun(number, study, "runs/*", "compare_encoders", *arguments)
    again = run_script("compare_encoders", *arguments, cwd=GAMES)
    assert again.returncode == 0, again.stderr
    with open(study / "results.csv") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done"] * 4
    assert_went_on(run, study / "logs" / f"{run.name}.log")
