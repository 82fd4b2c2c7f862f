"""A training on disk: everything that the next update depends on, without pickles.

A checkpoint holds ``policy.safetensors``, ``optimizer.pt`` and ``rng.pt`` (both read with
``weights_only=True``), ``state.json`` (counters, the last games, figures not yet logged) and, for
DQN, ``replay.safetensors``.
"""

from __future__ import annotations

import math
import random
from collections import deque
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.registry import Agent, algorithm_of
from envs.errors import UserError, first_line
from rlcnn.accelerate.gradient_step import portable_state
from rlcnn.runs.files import plain, read_json, write_json_atomic
from rlcnn.runs.torch_state import load_torch, restore_torch_rng, save_torch, torch_rng
from rlcnn.sb3 import EncoderExtractor
from rlcnn.weights.load import read_tensors, save_tensors
from rlcnn.weights.origin import Origin

POLICY, OPTIMIZER, RNG, STATE = "policy.safetensors", "optimizer.pt", "rng.pt", "state.json"
REPLAY = "replay.safetensors"


def save_checkpoint(
    model: Agent,
    directory: Path,
    *,
    replay: bool = True,
    extra: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> None:
    """Writes a model between two updates, and the origin of its encoder's first weights.

    :meth:`rlcnn.runs.RunDirectory.new_checkpoint` makes the ``directory`` whole. ``replay`` says
    whether DQN's replay is written too. ``extra`` are JSON values for ``state.json``, and ``about``
    those to keep beside the policy, such as how it was trained.

    Raises:
        UserError: the disk is full or cannot be written, or a parameter is no longer finite.
    """
    model.check_finite()
    origin = encoder_origin(model)
    described = {
        "algorithm": algorithm_of(model).name,
        "step": model.num_timesteps,
        "encoder": _encoder_spec(model),
        "origin": origin.to_json() if origin else None,
        "about": about or {},
    }
    save_tensors(directory / POLICY, model.policy.state_dict(), described)
    save_torch(portable_state(model.policy.optimizer), directory / OPTIMIZER)
    save_torch(torch_rng(model.device), directory / RNG)
    write_json_atomic(directory / STATE, {**_state(model), "extra": extra or {}})
    if replay and (stored := algorithm_of(model).find_replay(model)) is not None:
        stored.save(directory / REPLAY)


def load_policy(model: Agent, directory: Path) -> None:
    """Loads the parameters of a checkpoint and its encoder's origin; nothing else.

    Raises:
        UserError: the file is missing or damaged, or of another architecture.
    """
    path = directory / POLICY
    tensors, about = read_tensors(path, own=True)
    for what, here in (("algorithm", algorithm_of(model).name), ("encoder", _encoder_spec(model))):
        if what in about and about[what] != plain(here):
            raise UserError(f'"{path}" is for {what} {about[what]}, but this agent has {here}')
    own = {name: tuple(tensor.shape) for name, tensor in model.policy.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(own.keys() | saved.keys()):
        if own.get(name) != saved.get(name):
            raise UserError(
                f'"{path}" does not fit this agent: tensor {name} is {saved.get(name, "missing")}'
                f" there and {own.get(name, 'missing')} here"
            )
    model.policy.load_state_dict(tensors)
    if (extractor := encoder_extractor(model)) is not None:
        extractor.origin = Origin.from_json(about.get("origin"))


def load_checkpoint(model: Agent, directory: Path) -> dict[str, Any]:
    """Brings a new model of the same configuration to the state in a whole checkpoint.

    Its environments start new games: the emulator's state is not part of a checkpoint. The result
    is the ``extra`` given to :func:`save_checkpoint`.

    Raises:
        UserError: a file is missing or damaged, or of another algorithm or architecture.
    """
    state = read_json(directory / STATE)
    if state.get("algorithm") != algorithm_of(model).name:
        raise UserError(
            f"checkpoint {directory} is of algorithm {state.get('algorithm')!r},"
            f" not {algorithm_of(model).name!r}"
        )
    load_policy(model, directory)
    optimizer_state, rng = load_torch(directory / OPTIMIZER), load_torch(directory / RNG)
    try:
        model.policy.optimizer.load_state_dict(optimizer_state)
        _restore_state(model, state)
        if (replay := directory / REPLAY).exists():
            algorithm_of(model).load_replay(model, replay)
        extra = dict(state["extra"])
        # Last: the steps before may have drawn from the generators.
        _restore_rng(model.device, rng, state)
    except UserError:
        raise
    except Exception as error:
        # Whatever error a damaged file causes, the user's remedy is the same.
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"checkpoint {directory} is damaged: {reason}") from error
    return extra


def encoder_extractor(model: Agent) -> EncoderExtractor | None:
    """The features extractor of the network that learns; None where it is not one of ours."""
    extractor = algorithm_of(model).trained_network(model).features_extractor
    return extractor if isinstance(extractor, EncoderExtractor) else None


def encoder_origin(model: Agent) -> Origin | None:
    """The origin of an agent's first encoder weights; None if they were random."""
    extractor = encoder_extractor(model)
    return extractor.origin if extractor else None


def _encoder_spec(model: Agent) -> Any:
    """The encoder's name and options; None where it is not one of ours.

    Shapes are not enough: LeNet's variants with average and max pooling have equal ones.
    """
    extractor = encoder_extractor(model)
    return extractor.encoder.spec() if extractor else None


def _state(model: Agent) -> dict[str, Any]:
    return {
        "algorithm": algorithm_of(model).name,
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "episode_num": model._episode_num,
        "progress_remaining": model._current_progress_remaining,
        "episodes": list(model.ep_info_buffer or ()),
        "successes": list(model.ep_success_buffer or ()),
        "pending": _pending(model),
        "python_rng": _python_rng(),
        "numpy_rng": _numpy_rng(),
        **algorithm_of(model).training_state(model),
    }


def _restore_state(model: Agent, state: dict[str, Any]) -> None:
    model.num_timesteps = int(state["num_timesteps"])
    model._n_updates = int(state["n_updates"])
    model._episode_num = int(state["episode_num"])
    model._current_progress_remaining = float(state["progress_remaining"])
    model.ep_info_buffer = deque(state["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(state["successes"], maxlen=model._stats_window_size)
    for key, (value, exclude) in state["pending"].items():
        # JSON has no NaN: it comes back as None.
        model.logger.record(key, math.nan if value is None else value, tuple(exclude))
    algorithm_of(model).restore_training_state(model, state)


def _pending(model: Agent) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Metrics of the last update, logged with the next games, and where they are not logged."""
    logger = getattr(model, "_logger", None)
    if logger is None:
        return {}
    return {
        key: (float(value), logger.name_to_excluded[key])
        for key, value in logger.name_to_value.items()
        if isinstance(value, Real)
    }


def _python_rng() -> list[Any]:
    version, internal, gauss = random.getstate()
    return [version, list(internal), gauss]


def _numpy_rng() -> list[Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return [name, np.asarray(keys).tolist(), *rest]


def _restore_rng(
    device: torch.device, of_torch: dict[str, torch.Tensor], state: dict[str, Any]
) -> None:
    version, internal, gauss = state["python_rng"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy_rng"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    restore_torch_rng(device, of_torch)
