"""A pretrained encoder in a training: unfrozen in part or later, and its stored features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from support.observation_recorder import ObservationRecorder
from support.toy_envs import Columns, WorldVecEnv

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.storage.codecs import FeatureCodec, PixelCodec
from agents.storage.layout import layout_bytes, replay_layout
from agents.train.builder import describe_storage
from agents.train.checkpoint import encoder_extractor, load_checkpoint, save_checkpoint
from envs.errors import UserError
from rlcnn.accelerate.compilation import can_compile
from rlcnn.encoders import create_encoder
from rlcnn.weights.load import save_encoder

N_ENVS, DEPTH = 4, 2
ROLLOUT = 4 * 8
LENET = {"encoder": "lenet", "encoder_options": {"features_dim": 8}}
# With BatchNorm, before which stacks are one image.
RESIDUAL = {"encoder": "cifar_resnet", "encoder_options": {"depth": 8}}
# Which sees each frame alone.
PER_FRAME = {
    "encoder": "squeezenet1_1:features.3",
    "encoder_options": {"pooling": "mean", "features_dim": 8},
}
BOTH = pytest.mark.parametrize("algorithm", [PPO, DQN])
Algorithm = type[PPO] | type[DQN]


def make(
    algorithm: Algorithm, extractor: dict[str, Any], venv: Any = None, seed: int = 0, **policy: Any
) -> Any:
    options: dict[str, Any] = {
        PPO: {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
        DQN: {"buffer_size": 400, "learning_starts": 16, "batch_size": 8},
    }[algorithm]
    model = algorithm(
        "CnnPolicy",
        venv or WorldVecEnv(Columns(1), N_ENVS, depth=DEPTH),
        learning_rate=1e-2,
        policy_kwargs={"features_extractor_kwargs": extractor, **policy},
        seed=seed,
        device="cpu",
        **options,
    )
    model.set_logger(Logger(None, []))
    return model


def encoder_of(model: Any) -> Any:
    extractor = encoder_extractor(model)
    assert extractor is not None
    return extractor.encoder


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    """All that weights are loaded for, running statistics included."""
    parts = torch.nn.ModuleList(encoder_of(model).pretrained_parts())
    return {name: tensor.clone() for name, tensor in parts.state_dict().items()}


def stored_by(model: Any) -> Any:
    return model.setup_replay().codec if isinstance(model, DQN) else model.rollout_buffer.codec


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


class EachUpdate(BaseCallback):
    """Calls a function at every step at which updates may have been made since the last one."""

    def __init__(self, look: Callable[[int], None]) -> None:
        super().__init__()
        self.look = look

    def _on_rollout_start(self) -> None:
        self.look(self.num_timesteps)

    def _on_step(self) -> bool:
        return True


# -- from a node on --------------------------------------------------------------------------------


@BOTH
def test_only_what_comes_from_the_node_on_learns(algorithm: Algorithm) -> None:
    model = make(algorithm, {**RESIDUAL, "unfreeze_from": "trunk.stage3"}, encoder_lr_factor=0.1)
    assert isinstance(stored_by(model), PixelCodec)
    before = tensors_of(model)
    model.learn(3 * ROLLOUT)
    # BatchNorm's running statistics, too.
    learned = moved(before, tensors_of(model))
    assert learned == {name for name in before if name.startswith("0.trunk.stage3.")}
    assert any("running_mean" in name for name in learned)
    assert any("running_mean" in name for name in before.keys() - learned)


# -- from a step on --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm, frozen_until, first",
    [
        (PPO, 64, 64),
        (PPO, 65, None),
        pytest.param(DQN, 64, 64, marks=pytest.mark.slow),
        (DQN, 65, None),
    ],
)
def test_the_first_update_at_the_step_is_the_first_that_learns_the_encoder(
    algorithm: Algorithm, frozen_until: int, first: int | None
) -> None:
    model = make(algorithm, RESIDUAL, encoder_lr_factor=0.1, unfreeze_at_step=frozen_until)
    if first is None:
        # The next step at which updates are made.
        first = 64 + (ROLLOUT if algorithm is PPO else N_ENVS)
    groups = model.policy.optimizer.param_groups
    pretrained = {id(p) for part in encoder_of(model).pretrained_parts() for p in part.parameters()}
    assert {id(p) for p in groups[0]["params"]} == pretrained
    before = tensors_of(model)
    changes: dict[int, set[str]] = {}
    model.learn(
        4 * ROLLOUT,
        EachUpdate(lambda step: changes.update({step: moved(before, tensors_of(model))})),
    )
    # At the start of a rollout, what was learned at that very step is there to be seen.
    assert any(step < first for step in changes if step)
    assert all(changed == set() for step, changed in changes.items() if step < first)
    # A unit that none of the images reaches has no gradient yet.
    assert len(changes[first]) > len(before) / 2
    assert any("running_mean" in name for name in changes[first])
    assert groups[0]["lr"] == pytest.approx(0.1 * groups[1]["lr"])
    assert isinstance(stored_by(model), PixelCodec)


@BOTH
def test_what_comes_before_the_node_stays_frozen_after_the_step(algorithm: Algorithm) -> None:
    extractor = {**LENET, "unfreeze_from": "trunk.c3"}
    model = make(algorithm, extractor, encoder_lr_factor=0.1, unfreeze_at_step=ROLLOUT)
    before = tensors_of(model)
    model.learn(3 * ROLLOUT)
    assert moved(before, tensors_of(model)) == {
        name for name in before if not name.startswith("0.trunk.c1.")
    }


def learn_to(model: Any, step: int, total: int = 8 * ROLLOUT) -> None:
    def goes_on(values: dict[str, Any], _: Any) -> bool:
        return step == total or values["self"].num_timesteps < step

    model.learn(total - model.num_timesteps, callback=goes_on, reset_num_timesteps=False)


@pytest.mark.parametrize(
    "algorithm, cut",
    [
        pytest.param(PPO, 3 * ROLLOUT, id="before PPO"),
        pytest.param(PPO, 6 * ROLLOUT, id="after PPO"),
        pytest.param(DQN, 3 * ROLLOUT, id="before DQN"),
        pytest.param(DQN, 6 * ROLLOUT, id="after DQN", marks=pytest.mark.slow),
    ],
)
def test_two_resumes_are_alike_to_the_bit_before_the_step_and_after(
    algorithm: Algorithm, cut: int, tmp_path: Path
) -> None:
    until = 4 * ROLLOUT + 1
    policy = {"encoder_lr_factor": 0.1, "unfreeze_at_step": until}
    model = make(algorithm, LENET, **policy)
    initial = tensors_of(model)
    learn_to(model, cut)
    save_checkpoint(model, tmp_path)
    saved = tensors_of(model)
    assert moved(initial, saved) == (set() if cut < until else set(initial))
    ends = []
    for seed in (5, 6):
        again = make(algorithm, LENET, seed=seed, **policy)
        load_checkpoint(again, tmp_path)
        again.env.seed(11)
        steps: dict[int, set[str]] = {}
        again.learn(
            8 * ROLLOUT - again.num_timesteps,
            EachUpdate(lambda step: steps.update({step: moved(saved, tensors_of(again))})),  # noqa: B023
            reset_num_timesteps=False,
        )
        if cut < until:
            assert all(changed == set() for step, changed in steps.items() if step < until)
        assert moved(saved, tensors_of(again)) == set(saved)
        ends.append((again.policy.state_dict(), again.policy.optimizer.state_dict()["state"]))
    (one, one_moments), (other, other_moments) = ends
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one_moments.keys() == other_moments.keys()
    for place, moments in one_moments.items():
        assert all(torch.equal(moments[name], other_moments[place][name]) for name in moments)


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "compiled"]
)
def test_with_overlap_the_step_counts_as_without(compiled: bool) -> None:
    if compiled and not can_compile():
        pytest.skip("there is no C++ compiler")
    venv = WorldVecEnv(Columns(1), N_ENVS, depth=DEPTH)
    model = PPO(
        "CnnPolicy",
        venv,
        n_steps=8,
        batch_size=16,
        n_epochs=1,
        policy_kwargs={"features_extractor_kwargs": LENET, "unfreeze_at_step": 3 * ROLLOUT},
        device="cpu",
        overlap=True,
        compile_update=compiled,
    )
    before = tensors_of(model)
    changes = {}

    def look(step: int) -> None:
        model.finish_update()
        changes[step] = moved(before, tensors_of(model))

    model.learn(5 * ROLLOUT, EachUpdate(look))
    assert [step for step, changed in changes.items() if changed] == [3 * ROLLOUT, 4 * ROLLOUT]


@pytest.mark.parametrize(
    "policy, said",
    [
        ({"unfreeze_at_step": -1}, "unfreeze_at_step must be at least 0, not -1"),
        ({"unfreeze_at_step": 0.5}, "unfreeze_at_step must be a whole number, not 0.5"),
        ({"feature_dtype": "fp8"}, "feature_dtype must be one of"),
        ({"unfreeze_at_step": 5, "frozen": True}, "no meaning for an encoder that stays frozen"),
    ],
)
@BOTH
def test_a_bad_option_is_one_line(algorithm: Algorithm, policy: dict[str, Any], said: str) -> None:
    of_policy = {name: value for name, value in policy.items() if name != "frozen"}
    with pytest.raises(UserError, match=said):
        make(algorithm, {**LENET, "frozen": "frozen" in policy}, **of_policy)


# -- what features are stored in -------------------------------------------------------------------

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize("extractor", [PER_FRAME, LENET], ids=["per frame", "whole stacks"])
@pytest.mark.parametrize("name", DTYPES)
@BOTH
def test_stored_features_are_the_encoders_to_the_types_rounding(
    algorithm: Algorithm, name: str, extractor: dict[str, Any]
) -> None:
    recorder = ObservationRecorder(WorldVecEnv(Columns(1), N_ENVS, depth=DEPTH))
    model = make(algorithm, {**extractor, "frozen": True}, recorder, feature_dtype=name)
    model.learn(ROLLOUT)
    if algorithm is PPO:
        stored = model.rollout_buffer.observations(torch.arange(ROLLOUT))
    else:
        returns = model._learner.returns
        times = torch.arange(8).repeat_interleave(N_ENVS)
        envs = torch.arange(N_ENVS).repeat(8)
        stored = model.replay_buffer.transitions(times, envs, returns).observations
    assert stored.dtype == DTYPES[name]
    seen = torch.as_tensor(np.concatenate(recorder.seen[:8]))
    whole = FeatureCodec(encoder_of(model), recorder.get_attr("frame_stacking")[0], model.device)
    exact = whole.encode_stacks(seen.numpy())
    # Half of the gap between two numbers of the type; beside it what fp32 sums in another order.
    rounding = torch.finfo(DTYPES[name]).eps / 2
    torch.testing.assert_close(stored.float(), exact, rtol=rounding + 1e-5, atol=1e-6)
    network = model.policy.q_net if algorithm is DQN else model.policy
    with torch.no_grad():
        outputs = [
            network(given) if algorithm is DQN else network.logits_and_values(given)[0]
            for given in (stored, seen)
        ]
    # Of at most a few units, by features of a few dozen.
    torch.testing.assert_close(*outputs, rtol=0, atol=max(1e-4, 8 * rounding))


@BOTH
def test_memory_follows_the_type(algorithm: Algorithm) -> None:
    made = {
        name: make(algorithm, {**PER_FRAME, "frozen": True}, feature_dtype=name)
        for name in ("fp32", "bf16")
    }
    lines = {name: describe_storage(model) for name, model in made.items()}
    assert "(float32) of each frame" in lines["fp32"]
    assert "(bfloat16) of each frame" in lines["bf16"]
    held = {}
    for name, model in made.items():
        if algorithm is DQN:
            held[name] = model.replay_buffer.ring.frames.nbytes
            layout = replay_layout(400, model.action_space.n, N_ENVS, model.replay_buffer.codec)
            assert model.replay_buffer.nbytes == layout_bytes(layout)
        else:
            held[name] = model.rollout_buffer.frames.nbytes
    assert held["fp32"] == 2 * held["bf16"]


def test_auto_loses_nothing_of_what_bf16_computes() -> None:
    exact, auto = (
        make(PPO, {**PER_FRAME, "frozen": True}, precision="bf16", feature_dtype=name)
        for name in ("fp32", "auto")
    )
    auto.policy.load_state_dict(exact.policy.state_dict())
    frames = np.random.default_rng(0).integers(0, 256, (6, DEPTH, 36, 36), dtype=np.uint8)
    kept = [
        model.policy.storage_spec(model.env.frame_stacking).encode_stacks(frames)
        for model in (exact, auto)
    ]
    assert [tensor.dtype for tensor in kept] == [torch.float32, torch.bfloat16]
    assert torch.equal(kept[0], kept[1].float())


def test_what_is_beyond_a_types_range_becomes_its_largest_number() -> None:
    model = make(PPO, {**PER_FRAME, "frozen": True}, feature_dtype="fp16")
    with torch.no_grad():
        for parameter in encoder_of(model).trunk.parameters():
            parameter.fill_(100)
    frames = np.full((1, DEPTH, 36, 36), 255, dtype=np.uint8)
    stored = model.policy.storage_spec(model.env.frame_stacking).encode_stacks(frames)
    assert stored.max() == torch.finfo(torch.float16).max


def test_a_replay_in_bf16_is_saved_and_loaded(tmp_path: Path) -> None:
    model = make(DQN, {**PER_FRAME, "frozen": True}, feature_dtype="bf16")
    model.learn(4 * ROLLOUT)
    save_checkpoint(model, tmp_path)
    again = make(DQN, {**PER_FRAME, "frozen": True}, seed=1, feature_dtype="bf16")
    load_checkpoint(again, tmp_path)
    frames = [m.replay_buffer.ring.frames for m in (model, again)]
    assert frames[0].dtype == torch.bfloat16
    assert frames[0].any()
    assert torch.equal(*frames)
    again.learn(ROLLOUT, reset_num_timesteps=False)


# -- weights that change under what is stored ------------------------------------------------------


class Compare(BaseCallback):
    """Compares stored features with the present encoder's, on the same observations."""

    def __init__(self, recorder: ObservationRecorder, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.recorder, self.change, self.compared = recorder, change, 0

    def _on_rollout_start(self) -> None:
        if self.num_timesteps == ROLLOUT:
            self.change(self.model)

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        stored = model.rollout_buffer.observations(torch.arange(ROLLOUT)).flatten(1)
        seen = torch.as_tensor(np.concatenate(self.recorder.seen[-9:-1]))
        encoder = encoder_of(model)
        frames = encoder.encode_frames(seen.flatten(0, 1)[:, None]).view(ROLLOUT, -1)
        torch.testing.assert_close(stored, frames, rtol=1e-4, atol=1e-5)
        self.compared += 1

    def _on_step(self) -> bool:
        return True


def put_another_policy(model: Any) -> None:
    model.policy = make(PPO, {**PER_FRAME, "frozen": True}, seed=9).policy


def load_other_weights(model: Any) -> None:
    other = make(PPO, {**PER_FRAME, "frozen": True}, seed=9)
    model.policy.load_state_dict(other.policy.state_dict())


@pytest.mark.parametrize("change", [put_another_policy, load_other_weights])
def test_rollouts_hold_what_the_present_encoder_makes(change: Callable[[Any], None]) -> None:
    recorder = ObservationRecorder(WorldVecEnv(Columns(1), N_ENVS, depth=DEPTH))
    model = make(PPO, {**PER_FRAME, "frozen": True}, recorder)
    compare = Compare(recorder, change)
    model.learn(3 * ROLLOUT, compare)
    assert compare.compared == 3


def test_a_replay_of_another_encoders_features_is_not_learned_from(tmp_path: Path) -> None:
    model = make(DQN, {**LENET, "frozen": True})
    model.learn(2 * ROLLOUT)
    # What it already holds, put there once more, changes nothing.
    model.policy.load_state_dict(model.policy.state_dict())
    model.learn(ROLLOUT, reset_num_timesteps=False)
    model.save_replay_buffer(tmp_path / "replay.safetensors")
    other = make(DQN, {**LENET, "frozen": True}, seed=9)
    other.load_replay_buffer(tmp_path / "replay.safetensors")
    model.policy.load_state_dict(other.policy.state_dict())
    for one in (model, other):
        with pytest.raises(UserError, match="features of another encoder than the agent's"):
            one.learn(ROLLOUT, reset_num_timesteps=False)
    model.replay_buffer = None
    model.learn(ROLLOUT, reset_num_timesteps=False)


# -- stable-baselines3's own files -----------------------------------------------------------------


@BOTH
def test_a_zip_needs_no_weights_file(algorithm: Algorithm, tmp_path: Path) -> None:
    weights = tmp_path / "lenet.safetensors"
    save_encoder(create_encoder("lenet", (DEPTH, 36, 36), features_dim=8), weights)
    extractor = {**LENET, "weights": str(weights), "frozen": True}
    model = make(algorithm, extractor)
    model.learn(ROLLOUT)
    model.save(tmp_path / "agent.zip")
    model.policy.save(tmp_path / "policy.zip")
    weights.unlink()
    venv = WorldVecEnv(Columns(1), N_ENVS, depth=DEPTH)
    again: Any = algorithm.load(tmp_path / "agent.zip", env=venv)
    assert moved(tensors_of(model), tensors_of(again)) == set()
    observations = np.random.default_rng(0).integers(0, 256, (5, DEPTH, 36, 36), dtype=np.uint8)
    acted = [m.predict(observations, deterministic=True)[0] for m in (model, again)]
    assert (acted[0] == acted[1]).all()
    # It goes on, still frozen.
    before = tensors_of(again)
    again.learn(ROLLOUT, reset_num_timesteps=False)
    assert moved(before, tensors_of(again)) == set()
    policy = type(model.policy).load(tmp_path / "policy.zip")
    assert (policy.predict(observations, deterministic=True)[0] == acted[0]).all()


@BOTH
def test_a_zip_goes_on_to_be_unfrozen(algorithm: Algorithm, tmp_path: Path) -> None:
    model = make(algorithm, LENET, encoder_lr_factor=0.1, unfreeze_at_step=3 * ROLLOUT)
    model.learn(2 * ROLLOUT)
    model.save(tmp_path / "agent.zip")
    venv = WorldVecEnv(Columns(1), N_ENVS, depth=DEPTH)
    again: Any = algorithm.load(tmp_path / "agent.zip", env=venv)
    assert again.policy.unfreeze_at_step == 3 * ROLLOUT
    before = tensors_of(again)
    again.learn(2 * ROLLOUT, reset_num_timesteps=False)
    assert moved(before, tensors_of(again)) == set(before)
