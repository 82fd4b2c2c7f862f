"""Groups of environments that step in turn: the same steps as all of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from support.toy_envs import Clock, Columns, WorldVecEnv

from agents.ppo.agent import PPO
from envs.groups import GroupedVecEnv

pytestmark = pytest.mark.usefixtures("one_thread")
LENET = {"encoder": "lenet", "encoder_options": {"features_dim": 16}}


class Noted(WorldVecEnv):
    """Records when it is sent actions and when it is waited for."""

    log: list[str]
    name: str

    def step_async(self, actions: np.ndarray) -> None:
        self.log.append(f"send {self.name}")
        super().step_async(actions)

    def step_wait(self) -> Any:
        self.log.append(f"wait {self.name}")
        return super().step_wait()


def make_env(*sizes: int, world: Any = None) -> GroupedVecEnv:
    groups, log = [], []  # type: ignore[var-annotated]
    for number, size in enumerate(sizes):
        group = Noted(world or Columns(), size, 2)
        group.log, group.name = log, "AB"[number]
        groups.append(group)
    venv = GroupedVecEnv(groups)
    venv.seed(0)
    return venv


def make_ppo(env: Any, **options: Any) -> PPO:
    settings: dict[str, Any] = {"n_steps": 4, "batch_size": 8, "n_epochs": 1, "seed": 0, **options}
    frozen = settings.pop("frozen", False)
    kwargs = {"features_extractor_kwargs": {**LENET, "frozen": frozen}}
    return PPO("CnnPolicy", env, policy_kwargs=kwargs, device="cpu", **settings)


class Record(BaseCallback):
    """Keeps every step that callbacks see."""

    def __init__(self, stop_at: int = 10**9) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self.stop_at = stop_at

    def _on_step(self) -> bool:
        names = ("actions", "new_obs", "rewards", "dones")
        self.steps.append({name: np.copy(self.locals[name]) for name in names})
        return len(self.steps) < self.stop_at


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("world", [Columns(), Clock()], ids=["ends", "time limit"])
def test_what_is_stored_is_what_the_environments_show_when_stepped_together(
    world: Any, frozen: bool
) -> None:
    venv, record = make_env(2, 2, world=world), Record()
    model = make_ppo(venv, frozen=frozen, learning_rate=0.0)
    model.learn(3 * 16, callback=record)
    together = make_env(2, 2, world=world)
    # As the agent was made: it seeds its environments.
    together.seed(0)
    together.reset()
    for step in record.steps:
        observations, rewards, dones, _ = together.step(step["actions"])
        assert np.array_equal(observations, step["new_obs"])
        assert np.array_equal(dones, step["dones"])
        assert np.allclose(rewards, step["rewards"])
    # The last rollout, from which nothing was learned since: its observations give its values.
    rollout = model._spare_rollout
    stored = rollout.observations(torch.arange(16))
    values, log_probs, _ = model.policy.evaluate_actions(stored, rollout.actions.flatten())
    torch.testing.assert_close(values.flatten(), rollout.values.flatten())
    torch.testing.assert_close(log_probs, rollout.log_probs.flatten())


def test_a_time_limit_is_valued_in_the_group_where_it_cut() -> None:
    model = make_ppo(make_env(1, 2, world=Clock()), n_steps=40, batch_size=120, gamma=0.5)
    record = Record()
    model.learn(120, callback=record)
    cut = np.array([step["dones"] for step in record.steps])
    assert cut.any()
    bonus = model._spare_rollout.rewards.numpy() - np.array(
        [step["rewards"] for step in record.steps]
    )
    assert (bonus[~cut] == 0).all()
    assert (bonus[cut] != 0).all()


def test_a_group_plays_while_the_policy_acts_for_the_other() -> None:
    venv = make_env(1, 1)
    make_ppo(venv, n_steps=3, batch_size=6).learn(6)
    log = venv.groups[0].log  # type: ignore[attr-defined]
    assert log == [
        *("send A", "send B"),
        *("wait A", "send A", "wait B", "send B"),
        *("wait A", "send A", "wait B", "send B"),
        *("wait A", "wait B"),
    ]


def test_one_group_is_sent_actions_when_callbacks_are_done() -> None:
    venv = make_env(2)
    make_ppo(venv, n_steps=3, batch_size=6).learn(6)
    assert venv.groups[0].log == ["send A", "wait A"] * 3  # type: ignore[attr-defined]


def test_a_callback_that_stops_leaves_no_group_playing() -> None:
    venv = make_env(1, 1)
    model = make_ppo(venv, n_steps=3, batch_size=6)
    model.learn(60, callback=Record(stop_at=2))
    assert model.num_timesteps == 0
    log = venv.groups[0].log  # type: ignore[attr-defined]
    assert log.count("send A") == log.count("wait A")
    shown = [group.observations for group in venv.groups]  # type: ignore[attr-defined]
    assert np.array_equal(model._last_obs, np.concatenate(shown))
    model.learn(6, reset_num_timesteps=False)
    assert model.num_timesteps == 6


def test_an_environment_that_raises_leaves_the_other_group_usable() -> None:
    venv = make_env(1, 1)
    model = make_ppo(venv, n_steps=3, batch_size=6)
    broken = venv.groups[1]
    step_wait = broken.step_wait

    def fail() -> Any:
        raise RuntimeError("broken")

    broken.step_wait = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="broken"):
        model.learn(6)
    broken.step_wait = step_wait  # type: ignore[method-assign]
    model.learn(6, reset_num_timesteps=False)
    assert model.num_timesteps >= 6
