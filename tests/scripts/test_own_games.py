"""Whole trainings of games of one's own from the command line: arguments, wrappers, processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from support.script_runs import policy, read, steps_of

from envs.errors import EnvironmentFailure

SHORT = [
    *("--obs-size", "36", "--num-envs", "2", "--num-threads", "1", "--precision", "fp32"),
    *("--ppo.n-steps", "8", "--ppo.batch-size", "16", "--ppo.n-epochs", "1"),
    *("--eval-episodes", "1", "--track", "disabled", "--compile", "off"),
]
SIGNALS = ["--env", "support.games:Signals-v0", "--env-kwargs", "length", "4", "colour", "True"]


class Invert(gym.ObservationWrapper):
    """Negatives of the images."""

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return 255 - observation


class Unplugged(gym.Wrapper):
    """Ends its process at the tenth step."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.left = 10

    def step(self, action: object) -> object:  # type: ignore[override]
        self.left -= 1
        if self.left == 0:
            sys.exit("unplugged")
        return self.env.step(action)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrappers here, under a name that ``--env-wrapper`` finds."""
    monkeypatch.setitem(sys.modules, "script_games", sys.modules[__name__])


def test_a_run_with_all_options_resumes_with_other_workers(
    train_agent: Callable[..., None], evaluate_agent: Callable[..., None], tmp_path: Path
) -> None:
    changed = [*SIGNALS, "--env-wrapper", "gymnasium.wrappers:OrderEnforcing", *SHORT]
    one, other = tmp_path / "one", tmp_path / "other"
    train_agent(*changed, "--env-workers", 2, "--total-steps", 16, "--run-dir", one)
    train_agent("--resume", one, "--total-steps", 32, "--env-workers", 0)
    train_agent(*changed, "--total-steps", 16, "--run-dir", other)
    train_agent("--resume", other, "--total-steps", 32, "--env-workers", 2)
    assert steps_of(one)[-1] == 32
    assert policy(one) == policy(other)
    config = read(one / "config.json")["config"]
    assert config["env_kwargs"] == {"length": 4, "colour": True}
    assert config["env_wrapper"] == ["gymnasium.wrappers:OrderEnforcing"]
    evaluate_agent(one, "--video", 1, "--json", tmp_path / "result.json")
    assert read(tmp_path / "result.json")["videos"]


def test_a_wrapper_that_fails_in_training_is_one_line(
    train_agent: Callable[..., None], tmp_path: Path
) -> None:
    wrapped = ["--env-wrapper", "script_games:Invert", "--env-wrapper", "script_games:Unplugged"]
    with pytest.raises(EnvironmentFailure, match="SystemExit: unplugged") as caught:
        train_agent(*SIGNALS, *wrapped, *SHORT, "--total-steps", 32, "--run-dir", tmp_path / "run")
    assert "\n" not in str(caught.value)
    # The first update is kept.
    assert steps_of(tmp_path / "run") == [16]


def test_minigrid_trains(train_agent: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("minigrid")
    game = ["--env", "minigrid:MiniGrid-Empty-5x5-v0", "--env-kwargs", "max_episode_steps", "20"]
    wrapper = ["--env-wrapper", "minigrid.wrappers:RGBImgObsWrapper", "--obs-key", "image"]
    train_agent(*game, *wrapper, *SHORT, "--total-steps", 208, "--run-dir", tmp_path / "run")
    assert steps_of(tmp_path / "run")[-1] == 208
    assert list((tmp_path / "run" / "videos").glob("*.mp4"))
