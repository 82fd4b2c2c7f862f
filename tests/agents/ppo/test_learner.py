"""PPO's update captured as a graph learns the same as uncaptured."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from support.pretend_gpu import PretendGPU
from support.toy_envs import Columns, WorldVecEnv

from agents.ppo.agent import PPO
from agents.train.checkpoint import OPTIMIZER, save_checkpoint
from rlcnn.accelerate.cuda_graphs import WARM_UP_CALLS

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"features_extractor_kwargs": {"encoder": "lenet", "encoder_options": {"features_dim": 16}}}
ROLLOUT, MINIBATCHES = 8 * 8, 2 * 2


def make_ppo(**options: Any) -> PPO:
    settings: dict[str, Any] = {
        "n_steps": 8,
        "batch_size": 32,
        "n_epochs": 2,
        # Rates that are the same numbers in single precision, in which a graph reads them.
        "learning_rate": 2**-8,
        "clip_range_vf": 0.5,
        "cuda_graphs": True,
        "policy_kwargs": TINY,
        "seed": 0,
        "device": "cuda",
        **options,
    }
    return PPO("CnnPolicy", WorldVecEnv(Columns(), 8, 2), **settings)


def parameters(model: PPO) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


def test_captured_updates_learn_the_same_to_the_bit_while_everything_is_annealed(
    pretend_gpu: PretendGPU,
) -> None:
    schedules = {
        "learning_rate": lambda progress: 2**-8 * progress,
        "clip_range": lambda progress: 0.25 * progress,
        "clip_range_vf": lambda progress: 0.5 * progress,
        "ent_coef": lambda progress: 2**-6 * progress,
    }
    captured = make_ppo(**schedules).learn(4 * ROLLOUT)
    counts = pretend_gpu.captures, pretend_gpu.replays
    plain = make_ppo(**schedules, cuda_graphs=False).learn(4 * ROLLOUT)
    assert torch.equal(parameters(captured), parameters(plain))
    logged = {name: v for name, v in plain.logger.name_to_value.items() if "time/" not in name}
    assert logged.items() <= captured.logger.name_to_value.items()
    # The update and acting, which begins each rollout uncaptured.
    assert counts == (2, 4 * MINIBATCHES + 4 * 8 - 2 * WARM_UP_CALLS)


def test_an_optimiser_loaded_in_between_is_captured_anew(pretend_gpu: PretendGPU) -> None:
    def trained(**options: Any) -> torch.Tensor:
        model = make_ppo(**options).learn(2 * ROLLOUT)
        state = copy.deepcopy(model.policy.optimizer.state_dict())
        model.policy.optimizer.load_state_dict(state)
        return parameters(model.learn(2 * ROLLOUT, reset_num_timesteps=False))

    assert torch.equal(trained(), trained(cuda_graphs=False))
    # The update twice, acting once.
    assert pretend_gpu.captures == 3


def test_with_overlap_it_is_captured_in_the_foreground(
    pretend_gpu: PretendGPU, caplog: pytest.LogCaptureFixture
) -> None:
    # At the start of each rollout: whether an update goes on beside it, and captures so far.
    starts: list[tuple[bool, int]] = []

    class Watch(BaseCallback):
        def _on_rollout_start(self) -> None:
            starts.append((model._runner.busy, pretend_gpu.captures))

        def _on_step(self) -> bool:
            return True

    model = make_ppo(overlap=True)
    with caplog.at_level(logging.WARNING):
        model.learn(7 * ROLLOUT, callback=Watch())
    assert not caplog.messages
    # One capture for each of the two rollouts in memory, one for acting; none beside an update.
    assert starts[0] == (False, 0)
    assert {captures for updating, captures in starts if updating} == {3}
    assert [updating for updating, _ in starts][-2:] == [True, True]


@pytest.mark.parametrize(
    "options",
    [
        {"target_kl": 1e9},
        {"cuda_graphs": False},
        {"policy_kwargs": {**TINY, "optimizer_kwargs": {"eps": 1e-5}}},
    ],
    ids=["target_kl", "off", "an optimiser that counts on the host"],
)
def test_what_cannot_or_shall_not_be_captured_is_not(
    options: dict[str, Any], pretend_gpu: PretendGPU
) -> None:
    assert make_ppo(**options).learn(ROLLOUT)._n_updates == 2
    # A rollout of 8 steps: acting alone may be captured.
    assert pretend_gpu.captures == int(options.get("cuda_graphs", True))


def test_a_checkpoint_holds_rates_as_numbers(pretend_gpu: PretendGPU, tmp_path: Path) -> None:
    model = make_ppo().learn(ROLLOUT)
    assert isinstance(model.policy.optimizer.param_groups[0]["lr"], torch.Tensor)
    save_checkpoint(model, tmp_path)
    state = torch.load(tmp_path / OPTIMIZER, weights_only=True)
    assert state["param_groups"][0]["lr"] == 2**-8
    assert isinstance(state["param_groups"][0]["lr"], float)
