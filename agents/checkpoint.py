"""A training in progress on disk: everything that the next update depends on, nothing pickled.

A checkpoint holds ``policy.safetensors``, ``optimizer.pt`` and ``rng.pt`` (both read with
``weights_only=True``), ``state.json`` (counters, the last games, figures not yet logged) and, for
DQN, ``replay.safetensors``.
"""

from __future__ import annotations

import random
from collections import deque
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.dqn import DQN
from agents.ppo import PPO
from envs.errors import UserError
from rlcnn.files import disk_errors, read_json, write_json_atomic
from rlcnn.weights import read_tensors, save_tensors

POLICY, OPTIMIZER, RNG, STATE = "policy.safetensors", "optimizer.pt", "rng.pt", "state.json"
REPLAY = "replay.safetensors"

Agent = PPO | DQN


def save_checkpoint(
    model: Agent, directory: Path, *, replay: bool = True, extra: dict[str, Any] | None = None
) -> None:
    """Writes a model that stands between two updates.

    Args:
        model: the agent.
        directory: an existing directory, made whole by the caller
            (:meth:`rlcnn.runs.RunDirectory.new_checkpoint`).
        replay: whether DQN's replay is written too.
        extra: JSON values to keep in ``state.json``.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    about = {"algorithm": algorithm(model), "step": model.num_timesteps}
    save_tensors(directory / POLICY, model.policy.state_dict(), about)
    _save_torch(model.policy.optimizer.state_dict(), directory / OPTIMIZER)
    _save_torch(_torch_rng(model.device), directory / RNG)
    write_json_atomic(directory / STATE, {**_state(model), "extra": extra or {}})
    if replay and isinstance(model, DQN):
        model.save_replay_buffer(directory / REPLAY)


def load_policy(model: Agent, directory: Path) -> None:
    """Loads the parameters of a checkpoint, and nothing else.

    Raises:
        UserError: the file is missing or damaged, or of another architecture.
    """
    path = directory / POLICY
    tensors, _ = read_tensors(path)
    own = {name: tuple(tensor.shape) for name, tensor in model.policy.state_dict().items()}
    saved = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(own.keys() | saved.keys()):
        if own.get(name) != saved.get(name):
            raise UserError(
                f'"{path}" does not fit this agent: tensor {name} is {saved.get(name, "missing")}'
                f" there and {own.get(name, 'missing')} here"
            )
    model.policy.load_state_dict(tensors)


def load_checkpoint(model: Agent, directory: Path) -> dict[str, Any]:
    """Brings a freshly made model to where the checkpoint was cut.

    Its environments start new games: the emulator's state is not part of a checkpoint.

    Args:
        model: made by the same configuration, with its environments.
        directory: a whole checkpoint.

    Returns:
        What ``save_checkpoint`` was given as ``extra``.

    Raises:
        UserError: a file is missing or damaged, or of another algorithm or architecture.
    """
    state = read_json(directory / STATE)
    if state.get("algorithm") != algorithm(model):
        raise UserError(
            f"checkpoint {directory} is of algorithm {state.get('algorithm')!r},"
            f" not {algorithm(model)!r}"
        )
    load_policy(model, directory)
    try:
        optimizer_state = torch.load(directory / OPTIMIZER, weights_only=True)
        rng = torch.load(directory / RNG, weights_only=True)
        model.policy.optimizer.load_state_dict(optimizer_state)
        _restore_state(model, state)
        replay = directory / REPLAY
        if isinstance(model, DQN) and replay.exists():
            model.load_replay_buffer(replay)
        _restore_rng(model.device, rng, state)
    except UserError:
        raise
    except Exception as error:
        # Whatever a damaged file makes the readers raise, the user's remedy is the same.
        raise UserError(f"checkpoint {directory} is damaged: {_first_line(error)}") from error
    return dict(state["extra"])


def algorithm(model: Agent) -> str:
    """The algorithm's name: "ppo" or "dqn"."""
    return type(model).__name__.lower()


def _state(model: Agent) -> dict[str, Any]:
    pending = model.logger.name_to_value if hasattr(model, "_logger") else {}
    state: dict[str, Any] = {
        "algorithm": algorithm(model),
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "episode_num": model._episode_num,
        "progress_remaining": model._current_progress_remaining,
        "episodes": list(model.ep_info_buffer or ()),
        # The update just done has been measured, but is logged with the next games.
        "pending": {key: float(v) for key, v in pending.items() if isinstance(v, Real)},
        "python_rng": _python_rng(),
        "numpy_rng": _numpy_rng(),
    }
    if isinstance(model, DQN):
        state["exploration_rng"] = model.exploration_state
    return state


def _restore_state(model: Agent, state: dict[str, Any]) -> None:
    model.num_timesteps = state["num_timesteps"]
    model._n_updates = state["n_updates"]
    model._episode_num = state["episode_num"]
    model._current_progress_remaining = state["progress_remaining"]
    model.ep_info_buffer = deque(state["episodes"], maxlen=model._stats_window_size)
    for key, value in state["pending"].items():
        model.logger.record(key, value)
    if isinstance(model, DQN):
        model.exploration_state = state["exploration_rng"]


def _torch_rng(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _python_rng() -> list[Any]:
    version, internal, gauss = random.getstate()
    return [version, list(internal), gauss]


def _numpy_rng() -> list[Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return [name, np.asarray(keys).tolist(), *rest]


def _restore_rng(
    device: torch.device, torch_rng: dict[str, torch.Tensor], state: dict[str, Any]
) -> None:
    version, internal, gauss = state["python_rng"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy_rng"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(torch_rng["cpu"])
    if device.type == "cuda" and "cuda" in torch_rng:
        torch.cuda.set_rng_state(torch_rng["cuda"], device)


def _save_torch(value: Any, path: Path) -> None:
    with disk_errors(path), open(path, "wb") as file:
        torch.save(value, file)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
