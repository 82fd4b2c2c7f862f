"""Checkpoints: all that the next update depends on, whole or refused, and nothing unpickled."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import KVWriter, Logger
from support.run_files import assert_equal
from support.toy_envs import Columns, WorldVecEnv

from agents.dqn.agent import DQN
from agents.ppo.agent import PPO
from agents.train.checkpoint import load_checkpoint, load_policy, save_checkpoint
from envs.errors import UserError

Make = Callable[..., Any]


class Rows(KVWriter):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
        shown = {k: v for k, v in key_values.items() if "tensorboard" not in key_excluded[k]}
        self.rows.append({"step": step, **shown})

    def close(self) -> None:
        pass


def encoder(name: str = "lenet", **options: Any) -> dict[str, Any]:
    return {
        "features_extractor_kwargs": {
            "encoder": name,
            "encoder_options": {"features_dim": 16, **options},
        }
    }


def make_ppo(seed: int = 0, policy: dict[str, Any] | None = None, **options: Any) -> PPO:
    settings: dict[str, Any] = {
        "n_steps": 8,
        "batch_size": 16,
        "n_epochs": 2,
        "learning_rate": lambda progress: 1e-3 * progress,
        "device": "cpu",
    }
    venv = WorldVecEnv(Columns(1), 4, depth=2)
    kwargs = policy or encoder()
    model = PPO("CnnPolicy", venv, policy_kwargs=kwargs, seed=seed, **{**settings, **options})
    model.set_logger(Logger(None, [Rows()]))
    return model


def make_dqn(seed: int = 0, policy: dict[str, Any] | None = None, **options: Any) -> DQN:
    settings: dict[str, Any] = {
        "buffer_size": 200,
        "learning_starts": 40,
        "batch_size": 8,
        "target_update_interval": 50,
        "exploration_fraction": 0.5,
        "learning_rate": lambda progress: 1e-3 * progress,
        "device": "cpu",
    }
    venv = WorldVecEnv(Columns(1), 4, depth=2)
    kwargs = policy or encoder()
    model = DQN("CnnPolicy", venv, policy_kwargs=kwargs, seed=seed, **{**settings, **options})
    model.set_logger(Logger(None, [Rows()]))
    return model


BOTH = pytest.mark.parametrize("make", [make_ppo, make_dqn])
TOTAL = 640


def learn_to(model: PPO | DQN, step: int, total: int = TOTAL) -> None:
    """Stands between two updates at ``step`` of ``total``."""

    def goes_on(values: dict[str, Any], _: Any) -> bool:
        return step == total or values["self"].num_timesteps < step

    model.learn(total - model.num_timesteps, callback=goes_on, reset_num_timesteps=False)


def rng_states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return (random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist())  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[Make, tuple[Any, Path, Any]]:
    """A model of each kind in mid-training, its checkpoint, and the generators' states there."""
    made: dict[Make, tuple[Any, Path, Any]] = {}
    for make in (make_ppo, make_dqn):
        model = make(seed=1)
        learn_to(model, 320)
        path = tmp_path_factory.mktemp("checkpoint")
        random.random(), np.random.random()
        save_checkpoint(model, path, extra={"wall_seconds": 1.5})
        made[make] = model, path, rng_states()
    return made


def test_the_fixture_is_in_the_middle_of_things(saved: Any) -> None:
    ppo, _, _ = saved[make_ppo]
    assert ppo.num_timesteps == 288
    assert ppo._n_updates == 2 * 9
    assert "train/loss" in ppo.logger.name_to_value
    dqn, _, _ = saved[make_dqn]
    assert dqn.num_timesteps == 320
    assert dqn._n_updates == 70
    assert 0.01 < dqn.exploration_rate < 1
    assert dqn.replay_buffer.pos * 4 > dqn.buffer_size, "the ring has not gone round"


@BOTH
def test_everything_is_as_it_was(make: Make, saved: Any) -> None:
    model, path, generators = saved[make]
    again = make(seed=99)
    extra = load_checkpoint(again, path)
    assert rng_states() == generators
    assert extra == {"wall_seconds": 1.5}
    assert_equal(again.policy.state_dict(), model.policy.state_dict())
    assert_equal(again.policy.optimizer.state_dict(), model.policy.optimizer.state_dict())
    for name in ("num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining"):
        assert getattr(again, name) == getattr(model, name), name
    assert list(again.ep_info_buffer) == list(model.ep_info_buffer)
    assert again.ep_info_buffer.maxlen == model.ep_info_buffer.maxlen
    assert again.logger.name_to_value == model.logger.name_to_value
    assert again.logger.name_to_excluded == model.logger.name_to_excluded
    if make is make_dqn:
        assert (
            again.exploration.rng.bit_generator.state == model.exploration.rng.bit_generator.state
        )
        assert_equal(again.loss_sum, model.loss_sum)
        assert again.loss_count == model.loss_count > 0
        assert_equal(again.replay_buffer._tensors, model.replay_buffer._tensors)
        assert (again.replay_buffer.first == model.replay_buffer.first).all()
        again.replay_buffer.check_valid()
        mine, theirs = (m.replay_buffer.sampler.generator for m in (again, model))
        assert_equal(mine.get_state(), theirs.get_state())


@BOTH
def test_schedules_go_on(make: Make, saved: Any) -> None:
    model, path, _ = saved[make]
    again = make()
    load_checkpoint(again, path)
    learn_to(again, TOTAL)
    rates = [row["train/learning_rate"] for row in again.logger.output_formats[0].rows[1:]]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] < 1e-3 * model._current_progress_remaining
    again._update_current_progress_remaining(again.num_timesteps, TOTAL)
    assert again._current_progress_remaining == pytest.approx(0, abs=0.05)
    if make is make_dqn:
        assert again.exploration_rate == again.exploration_final_eps


@BOTH
def test_two_copies_go_on_alike_to_the_bit(make: Make, saved: Any) -> None:
    _, path, _ = saved[make]
    ends = []
    for seed in (5, 6):
        model = make(seed)
        np.random.random(seed), torch.rand(seed), random.random()
        load_checkpoint(model, path)
        model.env.seed(11)
        learn_to(model, TOTAL)
        rows = [
            {key: value for key, value in row.items() if not key.startswith("time/")}
            for row in model.logger.output_formats[0].rows
        ]
        assert len(rows) > 5
        state = (model.policy.state_dict(), model.policy.optimizer.state_dict())
        ends.append((state, rows, rng_states()))
    assert_equal(*ends)


def test_figures_not_yet_logged_are_logged_as_they_would_have_been(tmp_path: Path) -> None:
    models = [make_ppo(), make_ppo()]
    metrics = {"a": 1, "b": 0.25, "hidden": 3, "odd": float("nan"), "endless": float("inf")}
    for key, value in metrics.items():
        exclude = "tensorboard" if key == "hidden" else None
        models[0].logger.record(key, value, exclude)
    models[0].logger.record("text", "not a figure")
    save_checkpoint(models[0], tmp_path)
    load_checkpoint(models[1], tmp_path)
    models[1].logger.dump(7)
    (row,) = models[1].logger.output_formats[0].rows  # type: ignore[attr-defined]
    # JSON has no infinity either; what is written in the end is null for both.
    assert {key: repr(value) for key, value in row.items()} == {
        "step": "7",
        "a": "1.0",
        "b": "0.25",
        "odd": "nan",
        "endless": "nan",
    }


def test_a_model_that_has_not_begun_can_be_saved(tmp_path: Path) -> None:
    for make in (make_ppo, make_dqn):
        path = tmp_path / make.__name__
        path.mkdir()
        model = make(seed=4)
        del model._logger
        save_checkpoint(model, path)
        again = make()
        load_checkpoint(again, path)
        assert_equal(again.policy.state_dict(), model.policy.state_dict())


def test_the_replay_can_be_left_out(tmp_path: Path) -> None:
    model = make_dqn()
    learn_to(model, 100)
    save_checkpoint(model, tmp_path, replay=False)
    assert not (tmp_path / "replay.safetensors").exists()
    again = make_dqn()
    load_checkpoint(again, tmp_path)
    updates = again._n_updates
    # It fills anew before it is learned from.
    learn_to(again, 128)
    assert again._n_updates == updates
    learn_to(again, 200)
    assert again._n_updates > updates


@BOTH
def test_parameters_that_are_not_finite_are_never_saved(make: Make, tmp_path: Path) -> None:
    model = make()
    learn_to(model, 64)
    with torch.no_grad():
        next(model.policy.parameters())[0] = float("nan")
    with pytest.raises(UserError, match=r"^the loss became nan by step"):
        save_checkpoint(model, tmp_path)
    assert os.listdir(tmp_path) == []


@BOTH
def test_a_policy_alone_can_be_loaded(make: Make, saved: Any) -> None:
    model, path, _ = saved[make]
    again = make()
    load_policy(again, path)
    assert_equal(again.policy.state_dict(), model.policy.state_dict())
    assert again.num_timesteps == 0


# -- what is refused -------------------------------------------------------------------------------


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


FILES = ["policy.safetensors", "optimizer.pt", "rng.pt", "state.json"]


@pytest.mark.parametrize("writer", ["torch", "pickle"])
@pytest.mark.parametrize(
    ("make", "name"),
    [(make_ppo, name) for name in FILES]
    + [(make_dqn, name) for name in (*FILES, "replay.safetensors")],
)
def test_nothing_is_unpickled(
    make: Make, writer: str, name: str, saved: Any, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved[make][1], copy)
    path = copy / name
    assert path.exists()
    bomb = {"state": Bomb(tmp_path / "exploded"), "param_groups": []}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path)
    refuse(make(), copy)
    assert not (tmp_path / "exploded").exists()
    # It would have worked.
    if name == "optimizer.pt" and writer == "torch":
        torch.load(path, weights_only=False)
        assert (tmp_path / "exploded").exists()


def refuse(model: Any, path: Path, said: str = "") -> None:
    with pytest.raises(UserError, match=said or None) as refusal:
        load_checkpoint(model, path)
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)
    assert path.name in str(refusal.value)


@BOTH
@pytest.mark.parametrize("harm", ["missing", "empty", "half", "garbage"])
def test_a_damaged_file_is_refused_in_one_line(
    make: Make, harm: str, saved: Any, tmp_path: Path
) -> None:
    original = saved[make][1]
    for file in sorted(original.iterdir()):
        if harm == "missing" and file.name == "replay.safetensors":
            continue
        copy = tmp_path / file.stem
        shutil.copytree(original, copy)
        content = file.read_bytes()
        harmed = {"empty": b"", "half": content[: len(content) // 2], "garbage": b"\x80junk" * 99}
        if harm == "missing":
            (copy / file.name).unlink()
        else:
            (copy / file.name).write_bytes(harmed[harm])
        refuse(make(), copy)


@pytest.mark.parametrize("key", ["num_timesteps", "episodes", "pending", "extra", "python_rng"])
@pytest.mark.parametrize("harm", ["missing", "of another kind"])
def test_a_state_of_another_form_is_refused(
    key: str, harm: str, saved: Any, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(saved[make_ppo][1], copy)
    state = json.loads((copy / "state.json").read_text())
    if harm == "missing":
        del state[key]
    else:
        state[key] = None
    (copy / "state.json").write_text(json.dumps(state))
    refuse(make_ppo(), copy, "is damaged")


def test_another_algorithms_is_refused(saved: Any) -> None:
    refuse(make_dqn(), saved[make_ppo][1], "is of algorithm 'ppo', not 'dqn'")
    refuse(make_ppo(), saved[make_dqn][1], "is of algorithm 'dqn', not 'ppo'")
    with pytest.raises(UserError, match="is for algorithm ppo, but this agent has dqn"):
        load_policy(make_dqn(), saved[make_ppo][1])


@BOTH
@pytest.mark.parametrize(
    "policy",
    [
        encoder(features_dim=17),
        encoder("nature"),
        # The same shapes as the ones saved, and another function.
        encoder(variant="course"),
    ],
)
def test_another_encoders_is_refused(make: Make, policy: Any, saved: Any) -> None:
    refuse(make(policy=policy), saved[make][1], "is for encoder .*, but this agent has")


@BOTH
def test_other_heads_are_refused(make: Make, saved: Any) -> None:
    refuse(make(policy={**encoder(), "net_arch": [8]}), saved[make][1], "does not fit this agent")


def test_a_replay_of_another_size_is_refused(saved: Any) -> None:
    refuse(make_dqn(buffer_size=100), saved[make_dqn][1], "does not fit")


def test_a_full_disk_is_one_line(tmp_path: Path, saved: Any) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    for name in ("optimizer.pt", "rng.pt"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / name).symlink_to(full)
        with pytest.raises(UserError, match=f"cannot write .*{name}: the disk is full"):
            save_checkpoint(saved[make_ppo][0], directory)
