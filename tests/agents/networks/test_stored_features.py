"""What a frozen encoder stores: its type, and what follows when its weights change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from support.observation_recorder import ObservationRecorder
from support.toy_envs import Columns, WorldVecEnv
from support.transfer_agents import (
    BOTH,
    DEPTH,
    LENET,
    N_ENVS,
    PER_FRAME,
    ROLLOUT,
    Algorithm,
    encoder_of,
    make,
)

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.storage.codecs import FeatureCodec
from agents.storage.layout import layout_bytes, replay_layout
from agents.train.builder import describe_storage
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from envs.errors import UserError

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
