"""Both algorithms on a real GPU: results, storage, waits and memory.

Comparisons with the CPU are in float32, where a sum of a few thousand products in another order
differs by some 1e-6 of its terms: losses and gradients are compared to 1e-4 of their size. A wrong
frame, action, target or constant changes them by far more, and TF32 changes gradients by 1e-3.
Comparisons of two trainings on the GPU are to the bit, with torch's deterministic algorithms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from support import gpu_agents
from support.gpu_agents import (
    N_ENVS,
    N_STEPS,
    PER_FRAME,
    ROLLOUT,
    WHOLE_STACKS,
    Mode,
    assert_same,
    is_captured,
    learn,
    make_dqn,
    make_env,
    make_ppo,
    network,
)
from support.observation_recorder import ObservationRecorder

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from envs.groups import GroupedVecEnv
from rlcnn.accelerate.devices import Precision

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("torch_settings")]

MODES = pytest.mark.parametrize("mode", ["train", "finetune", "frozen"])
STORED = pytest.mark.parametrize("mode", ["train", "frozen"], ids=["pixels", "features"])
ENCODERS = pytest.mark.parametrize(
    "encoder", [PER_FRAME, WHOLE_STACKS], ids=["per frame", "whole stacks"]
)
BOTH = pytest.mark.parametrize(
    ("make", "steps"), [(make_ppo, 6 * ROLLOUT), (make_dqn, 160)], ids=["ppo", "dqn"]
)
Make = Callable[..., PPO | DQN]
DEPTH = 2


# -- one update is the CPU's -----------------------------------------------------------------------


def use_sgd(model: PPO | DQN) -> None:
    """Plain steps of rate 1: those of Adam are as large where a gradient is rounding alone."""
    groups = [
        {"params": group["params"], "lr_factor": factor, "lr": factor}
        for group in model.policy.optimizer.param_groups
        for factor in [group.get("lr_factor", 1.0)]
    ]
    model.policy.optimizer = torch.optim.SGD(groups)


class Update:
    """What one update reported, its gradients, and how far it moved the parameters."""

    def __init__(self, model: PPO | DQN, update: Callable[[], torch.Tensor]) -> None:
        before = {n: p.detach().clone() for n, p in network(model).named_parameters()}
        self.report = update().cpu()
        found = {n: p for n, p in network(model).named_parameters() if p.grad is not None}
        self.gradients = {n: p.grad.cpu() for n, p in found.items() if p.grad is not None}
        self.steps = {n: (p.detach() - before[n]).cpu() for n, p in found.items()}


def assert_close(own: Update, expected: Update) -> None:
    torch.testing.assert_close(own.report, expected.report, rtol=1e-4, atol=1e-5)
    for mine, its in ((own.gradients, expected.gradients), (own.steps, expected.steps)):
        largest = max(float(tensor.abs().max()) for tensor in its.values())
        assert largest > 1e-3
        # A gradient is a difference of terms as large as the largest: its error is one of those.
        # On a CPU, sums in another order change it by 3e-7 of the largest, and TF32 by 1e-3.
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=2e-5 * largest)


def collected(device: str, mode: Mode) -> PPO:
    """An agent with a rollout of its own."""
    model = make_ppo(mode, device=device, learning_rate=1.0, clip_range_vf=0.2, ent_coef=0.01)
    _, callback = model._setup_learn(ROLLOUT, None)
    assert model.env is not None
    model.collect_rollouts(model.env, callback, model.rollout_buffer, N_STEPS)
    return model


def rollout_tensors(model: PPO) -> dict[str, torch.Tensor]:
    held = vars(model.rollout_buffer)
    return {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}


@MODES
def test_an_update_of_ppo_is_the_cpus(mode: Mode, deterministic: None) -> None:
    host, gpu = collected("cpu", mode), collected(gpu_agents.GPU, mode)
    torch.testing.assert_close(gpu_agents.parameters(gpu), gpu_agents.parameters(host))
    # As if the policy had changed since, by enough to be clipped.
    noise = torch.randn(N_STEPS, N_ENVS, generator=torch.Generator().manual_seed(0))
    host.rollout_buffer.log_probs += 0.3 * noise
    host.rollout_buffer.values -= 0.3 * noise
    for own, its in zip(rollout_tensors(gpu).values(), rollout_tensors(host).values(), strict=True):
        own.copy_(its)
    updates = []
    for model in (host, gpu):
        use_sgd(model)
        learner, rollout = model._prepare_learner(), model.rollout_buffer
        indices = torch.arange(ROLLOUT, device=model.device)
        updates.append(Update(model, lambda: learner.learn(rollout, indices)))  # noqa: B023
    assert 0 < updates[0].report[-1] < 1
    assert_close(updates[1], updates[0])


@MODES
def test_an_update_of_dqn_is_the_cpus(mode: Mode, deterministic: None) -> None:
    updates, targets = [], []
    for device in ("cpu", gpu_agents.GPU):
        # Random actions, which are drawn on the host: the same games on both.
        model = make_dqn(mode, device=device, learning_starts=10**6).learn(20 * N_ENVS)
        replay = model.replay_buffer
        assert replay is not None
        times = torch.arange(int(replay.first.max()), replay.pos, device=replay.device)
        times, envs = times.repeat(N_ENVS), torch.arange(N_ENVS).repeat_interleave(len(times))
        batch = replay.transitions(times, envs.to(replay.device), model._learner.returns)
        learner = model._learner
        learned = learner._objective.prepare(learner.target.network, batch.to(model.device), None)
        targets.append(learned.targets.cpu())
        use_sgd(model)
        model._set_up_parts()
        updates.append(Update(model, lambda: model._learner.learn(learned)))  # noqa: B023
    torch.testing.assert_close(targets[1], targets[0], rtol=1e-4, atol=1e-5)
    assert_close(updates[1], updates[0])


# -- graphs and overlap ----------------------------------------------------------------------------


@BOTH
@STORED
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_graphs_it_learns_the_same_to_the_bit(
    make: Make,
    steps: int,
    mode: Mode,
    precision: Precision,
    deterministic: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    captured = make(mode, precision, cuda_graphs=True)
    with caplog.at_level(logging.WARNING):
        reports = learn(captured, steps)
    assert not caplog.messages
    assert is_captured(captured)
    plain = make(mode, precision, cuda_graphs=False)
    assert_same(captured, plain, reports, learn(plain, steps))


class WaitForUpdates(BaseCallback):
    """Lets no update run beside a rollout."""

    def _on_rollout_start(self) -> None:
        self.model.finish_update()  # type: ignore[attr-defined]

    def _on_step(self) -> bool:
        return True


@BOTH
@STORED
def test_overlap_whose_updates_are_waited_for_is_a_training_without(
    make: Make, steps: int, mode: Mode, deterministic: None
) -> None:
    # Made one after the other: an agent seeds torch when it is made.
    plain = make(mode, cuda_graphs=True)
    reports = learn(plain, steps)
    overlapped = make(mode, cuda_graphs=True, overlap=True)
    assert_same(plain, overlapped, reports, learn(overlapped, steps, callback=WaitForUpdates()))


@BOTH
@STORED
def test_two_trainings_with_overlap_are_equal_to_the_bit(
    make: Make, steps: int, mode: Mode, deterministic: None
) -> None:
    beside: list[bool] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            beside.append(self.model._runner.busy)  # type: ignore[attr-defined]
            return True

    models, reports = [], []
    for _ in range(2):
        models.append(make(mode, "bf16", cuda_graphs=True, overlap=True))
        reports.append(learn(models[-1], steps, callback=Watch()))
    assert_same(*models, *reports)
    assert any(beside)


@pytest.mark.parametrize("replay_device", ["auto", "cpu"], ids=["replay there", "replay on host"])
def test_dqn_with_overlap_learns_the_same_of_the_same_steps(
    replay_device: str, deterministic: None
) -> None:
    # Actions by chance alone: which network is older has no say in them.
    options = {"exploration_final_eps": 1.0, "replay_device": replay_device, "cuda_graphs": True}
    plain = make_dqn(**options)
    reports = learn(plain, 160)
    overlapped = make_dqn(overlap=True, **options)
    assert_same(plain, overlapped, reports, learn(overlapped, 160))


# -- what is stored --------------------------------------------------------------------------------


class CompareStored(BaseCallback):
    """After each rollout: its stored data against the observations and the acting policy."""

    def __init__(self, recorder: ObservationRecorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.rollouts = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model = self.model
        assert isinstance(model, PPO)
        acting, rollout = model._acting_copy.network, model.rollout_buffer
        batch = rollout.batch(torch.arange(ROLLOUT, device=model.device))
        seen = torch.as_tensor(np.concatenate(self.recorder.seen[-N_STEPS - 1 : -1]))
        if batch.observations.dtype == torch.uint8:
            assert torch.equal(batch.observations.cpu(), seen)
        close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
        with torch.no_grad():
            cached = acting.logits_and_values(batch.observations)
            whole = acting.logits_and_values(seen.to(model.device))
            values, log_probs, _ = acting.evaluate_actions(batch.observations, batch.actions)
        torch.testing.assert_close(cached, whole, **close)
        torch.testing.assert_close(batch.old_values, values.flatten(), **close)
        torch.testing.assert_close(batch.old_log_prob, log_probs, **close)
        self.rollouts += 1


@pytest.mark.parametrize(
    ("mode", "encoder"),
    [("train", WHOLE_STACKS), ("frozen", WHOLE_STACKS), ("frozen", PER_FRAME)],
    ids=["pixels", "features of stacks", "features of frames"],
)
@pytest.mark.parametrize(
    ("groups", "overlap"),
    [(1, False), (2, False), (2, True)],
    ids=["one group", "two groups", "two groups with overlap"],
)
def test_a_rollout_holds_what_was_seen_and_acted_on(
    groups: int, overlap: bool, mode: Mode, encoder: dict[str, Any]
) -> None:
    recorders = [ObservationRecorder(make_env(N_ENVS // groups, seed)) for seed in range(groups)]
    env: Any = GroupedVecEnv(recorders) if groups > 1 else recorders[0]
    together = recorders[0] if groups == 1 else Together(recorders)
    model = make_ppo(mode, encoder=encoder, env=env, cuda_graphs=True, overlap=overlap)
    compare = CompareStored(together)
    model.learn(6 * ROLLOUT, callback=compare)
    assert is_captured(model)
    assert compare.rollouts == 6


class Together:
    """The recorders of groups as one."""

    def __init__(self, recorders: list[ObservationRecorder]) -> None:
        self._witnesses = recorders

    @property
    def seen(self) -> list[np.ndarray]:
        shown = zip(*(recorder.seen for recorder in self._witnesses), strict=True)
        return [np.concatenate(parts) for parts in shown]


@ENCODERS
@pytest.mark.parametrize("replay_device", ["cuda", "cpu"])
def test_a_replay_of_features_gives_what_the_encoder_gives(
    replay_device: str, encoder: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"learning_starts": 10**6, "cuda_graphs": True}
    options["replay_device"] = gpu_agents.GPU if replay_device == "cuda" else "cpu"
    pixels, features = (make_dqn(mode, encoder=encoder, **options) for mode in ("train", "frozen"))
    features.policy.load_state_dict(pixels.policy.state_dict())
    steps = 20
    batches = []
    for model in (pixels, features):
        model.learn(steps * N_ENVS)
        replay = model.replay_buffer
        assert replay is not None
        assert replay.captured
        replay.check_valid()
        times = torch.arange(int(replay.first.max()), steps).repeat_interleave(N_ENVS)
        envs = torch.arange(N_ENVS).repeat(len(times) // N_ENVS)
        where = times.to(replay.device), envs.to(replay.device)
        batches.append(replay.transitions(*where, model._learner.returns).to(model.device))
    shown, stored = batches
    assert shown.observations.dtype == torch.uint8
    assert stored.observations.dtype == torch.float32
    for field in ("actions", "rewards", "discounts"):
        assert torch.equal(getattr(stored, field), getattr(shown, field))
    with torch.no_grad():
        for field in ("observations", "next_observations"):
            own, expected = (pixels.q_net(getattr(batch, field)) for batch in (stored, shown))
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


# -- checkpoints -----------------------------------------------------------------------------------


def going_on(model: PPO | DQN, steps: int) -> torch.Tensor:
    """Continues in new environments, as a resume does."""
    model.set_env(make_env(seed=1))
    return learn(model, steps, reset_num_timesteps=False)


@BOTH
@pytest.mark.parametrize(
    ("graphs_before", "graphs_after"),
    [(True, True), (True, False), (False, True)],
    ids=["graphs", "graphs then eager", "eager then graphs"],
)
def test_a_checkpoint_goes_on_as_the_agent_does_to_the_bit(
    make: Make,
    steps: int,
    graphs_before: bool,
    graphs_after: bool,
    tmp_path: Path,
    deterministic: None,
) -> None:
    model = make("train", "bf16", cuda_graphs=graphs_before)
    model.learn(steps)
    save_checkpoint(model, tmp_path)
    reports = going_on(model, steps)
    loaded = make("train", "bf16", cuda_graphs=graphs_after)
    loaded._setup_learn(0, None)
    load_checkpoint(loaded, tmp_path)
    assert_same(model, loaded, reports, going_on(loaded, steps))
