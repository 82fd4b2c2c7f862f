"""A pretrained encoder in a training: unfrozen in part or later, and its stored features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.toy_envs import Columns, WorldVecEnv
from support.transfer_agents import (
    BOTH,
    DEPTH,
    LENET,
    N_ENVS,
    RESIDUAL,
    ROLLOUT,
    Algorithm,
    EachUpdate,
    encoder_of,
    make,
    moved,
    stored_by,
    tensors_of,
)

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.storage.codecs import PixelCodec
from agents.train.checkpoint import load_checkpoint, save_checkpoint
from envs.errors import UserError
from rlcnn.accelerate.compilation import can_compile
from rlcnn.encoders import create_encoder
from rlcnn.weights.load import save_encoder

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
    policy = {"encoder_lr_factor": 0.1, "head_lr_factor": 0.3, "unfreeze_at_step": until}
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
