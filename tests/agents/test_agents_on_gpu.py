"""Both algorithms on a real GPU: results, storage, waits and memory.

Comparisons with the CPU are in float32, where a sum of a few thousand products in another order
differs by some 1e-6 of its terms: losses and gradients are compared to 1e-4 of their size. A wrong
frame, action, target or constant changes them by far more, and TF32 changes gradients by 1e-3.
Comparisons of two trainings on the GPU are to the bit, with torch's deterministic algorithms.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from support import gpu_agents
from support.gpu_agents import (
    N_ENVS,
    N_STEPS,
    PER_FRAME,
    ROLLOUT,
    WHOLE_STACKS,
    Mode,
    allowing_waits,
    assert_same,
    is_captured,
    learn,
    make_dqn,
    make_env,
    make_ppo,
    network,
    refusing_waits,
)
from support.observation_recorder import ObservationRecorder
from support.toy_envs import Columns, WorldVecEnv

from agents.dqn.agent import DQN
from agents.dqn.objectives import bootstrap
from agents.ppo.agent import PPO
from agents.storage.codecs import PixelCodec
from agents.storage.layout import layout_bytes, replay_layout
from agents.storage.replay import FrameReplay
from agents.storage.rollout import FrameRollout
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from envs.groups import GroupedVecEnv
from envs.stacking import FrameStacking
from rlcnn.accelerate.devices import Precision
from rlcnn.accelerate.memory import _GPU_HEADROOM

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
        learned = bootstrap(model._learner.target.network, batch.to(model.device))
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


# -- waiting ---------------------------------------------------------------------------------------


def endless_env() -> WorldVecEnv:
    """Without time limits, whose values the host waits for."""
    return WorldVecEnv(Columns(), N_ENVS, DEPTH)


@STORED
@pytest.mark.parametrize("groups", [1, 2])
def test_collecting_and_learning_of_ppo_wait_for_actions_only(groups: int, mode: Mode) -> None:
    parts = [WorldVecEnv(Columns(), N_ENVS // groups, DEPTH) for _ in range(groups)]
    env: Any = GroupedVecEnv(parts) if groups > 1 else parts[0]
    model = make_ppo(mode, "bf16", env=env, cuda_graphs=True)
    model.learn(4 * ROLLOUT)
    assert is_captured(model)
    _, callback = model._setup_learn(ROLLOUT, None, reset_num_timesteps=False)
    assert model.env is not None
    rollout = model.rollout_buffer
    orders = [torch.randperm(ROLLOUT, device=model.device) for _ in range(2)]
    with refusing_waits():
        for _ in range(2):
            model.collect_rollouts(model.env, callback, rollout, N_STEPS)
            model._prepare_learner().update(rollout, orders, model.batch_size)


@pytest.mark.parametrize("overlap", [False, True], ids=["in turn", "overlap"])
@pytest.mark.parametrize(
    ("mode", "replay_device"),
    # Features on the host are waited for: what writes them there does not know of the GPU.
    [("train", "auto"), ("train", "cpu"), ("frozen", "auto")],
    ids=["pixels", "pixels on the host", "features"],
)
def test_storing_sampling_and_learning_of_dqn_wait_for_actions_only(
    mode: Mode, replay_device: str, overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"replay_device": replay_device, "overlap": overlap}
    model = make_dqn(mode, "bf16", env=endless_env(), cuda_graphs=True, **options)
    model.learn(160)
    assert is_captured(model)
    _, callback = model._setup_learn(ROLLOUT, None, reset_num_timesteps=False)
    env, replay, act = model.env, model.replay_buffer, model._actor.act
    assert env is not None
    assert replay is not None

    def read_actions(*arguments: Any) -> np.ndarray:
        with allowing_waits():
            return act(*arguments)

    monkeypatch.setattr(model._actor, "act", read_actions)
    with refusing_waits():
        for _ in range(10):
            # Also past an update of the target network.
            model.collect_rollouts(env, callback, model.train_freq, replay)  # type: ignore[arg-type]
            model.train(2, model.batch_size)
    model.finish_update()


# -- memory ----------------------------------------------------------------------------------------


def allocated() -> int:
    """Bytes that tensors hold on the GPU."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


# Torch's allocator hands out large blocks in multiples of this.
BLOCK = 2**21
IMAGES = spaces.Box(0, 255, (4, 84, 84), np.uint8)
CODEC = PixelCodec(FrameStacking(4, 1), (4, 84, 84))
MILLION = 10**6


def test_a_million_frames_take_what_was_promised() -> None:
    promised = layout_bytes(replay_layout(MILLION, 6, 8, CODEC))
    before = allocated()
    replay = FrameReplay(MILLION, 6, 8, CODEC, gpu_agents.GPU)
    taken = allocated() - before
    assert replay.nbytes == promised
    assert promised >= MILLION * 84 * 84
    # Seven large tensors and two of a few bytes.
    assert promised <= taken <= promised + 9 * BLOCK


def test_a_rollout_takes_what_it_says() -> None:
    before = allocated()
    rollout = FrameRollout(128, 64, CODEC, gpu_agents.GPU)
    taken = allocated() - before
    tensors = [value for value in vars(rollout).values() if isinstance(value, torch.Tensor)]
    assert rollout.nbytes <= taken <= rollout.nbytes + len(tensors) * BLOCK


class BigPictures(WorldVecEnv):
    """A world of random images of 84x84, in stacks of four."""

    def __init__(self, n_envs: int) -> None:
        super().__init__(Columns(), n_envs, 4)
        self.observation_space = IMAGES

    def _see(self, env: int) -> None:
        self.observations[env] = self.rng.integers(256, size=IMAGES.shape, dtype=np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_beside_what_is_stored_a_training_keeps_to_the_headroom(
    algorithm: str, precision: Precision
) -> None:
    before = allocated()
    torch.cuda.reset_peak_memory_stats()
    nature: dict[str, Any] = {"encoder": {"encoder": "nature"}, "cuda_graphs": True}
    model: PPO | DQN
    if algorithm == "ppo":
        sizes: dict[str, Any] = {"n_steps": 64, "batch_size": 256, "n_epochs": 2}
        model = make_ppo("train", precision, env=BigPictures(16), **nature, **sizes, overlap=True)
        model.learn(4 * 64 * 16)
        stored = model.rollout_bytes
    else:
        sizes = {"buffer_size": 100_000, "batch_size": 32, "replay_device": "auto"}
        model = make_dqn("train", precision, env=BigPictures(8), **nature, **sizes)
        model.learn(400)
        assert model.replay_buffer is not None
        assert model.replay_buffer.device.type == "cuda"
        stored = model.replay_buffer.nbytes
    assert is_captured(model)
    beside = torch.cuda.max_memory_allocated() - before - stored
    # The room that is left beside a replay when it is decided whether it fits. Parameters,
    # gradients and Adam's moments are 27 MB of it, activations of 256 images some 60 MB; the rest
    # is for workspaces of cuBLAS (32 MiB for each graph's stream) and of cuDNN's kernels on trial.
    assert 0 < beside < _GPU_HEADROOM


# -- captures that fail ----------------------------------------------------------------------------

FAILING_CAPTURES = """
import torch
from rlcnn.accelerate.cuda_graphs import Graphed, make_recorder
from envs.errors import UserError

device = torch.device("cuda")

def in_python(given):
    if torch.cuda.is_current_stream_capturing():
        raise ValueError("not in a graph")
    return given * 2

def in_cuda(given):
    return given * given.sum().item()

def works():
    return (torch.ones(2, device=device) + 1).tolist() == [2.0, 2.0]

run = Graphed(in_python, "first", device, make_recorder(device))
print([run(torch.ones(1)).item() for _ in range(6)], works())
run = Graphed(in_cuda, "second", device, make_recorder(device))
stream = torch.cuda.current_stream()
try:
    print([run(torch.ones(1)).item() for _ in range(6)])
except UserError as error:
    print(error)
print(torch.cuda.current_stream() == stream, works())
"""


def test_after_a_capture_that_failed_the_gpu_goes_on() -> None:
    # In a process of its own: nobody knows what an invalidated capture leaves behind.
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FAILING_CAPTURES],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert lines[0] == f"{[2.0] * 6} True"
    assert "the first runs without a CUDA graph: not in a graph" in done.stderr
    assert lines[1].startswith("CUDA refused to capture the second as a graph: ")
    assert lines[1].endswith(". Run again with --cuda-graphs off")
    assert lines[2] == "True True"
    assert done.returncode == 0, done.stderr
