"""Looks up environments by name in Gymnasium's registry, with helpful errors."""

from __future__ import annotations

import importlib
import re
from pathlib import Path, PurePath
from typing import Any

import ale_py
import gymnasium as gym
from ale_py import roms
from gymnasium.envs.registration import EnvSpec

from envs.errors import UserError, describe_error, in_shell, nearest

gym.register_envs(ale_py)


def find_spec(env_id: str) -> EnvSpec:
    """The registered environment of this id; ``module:Id-v0`` imports the module first.

    Raises:
        UserError: there is none (the message names the nearest id), or its module cannot be
            imported.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        if "/" in module or module.endswith(".py"):
            raise UserError(
                f'environment "{env_id}" names a file: expected a module, as import does, such as'
                f' "{PurePath(module).stem}:{name}" from the directory that the file is in'
            )
        import_users_module(module, f'environment "{env_id}"')
    spec = gym.registry.get(name)
    if spec is None:
        known = [known for known in gym.registry if not _is_old_atari(gym.registry[known])]
        near = nearest(name, known, key=_game)
        if module and not near:
            near = f' "{module}" must call gymnasium.register(id="{name}", entry_point=...)'
        named = module or _game(name) in map(_game, known)
        yours = "" if named else f' If it is yours, name its module: "my_module:{name}"'
        raise UserError(f'unknown environment "{env_id}".{near}{yours}')
    return spec


def import_users_module(module: str, option: str) -> Any:
    """Imports a module that an option names, such as ``environment "my_game:Game-v0"``.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    # The user's module may raise anything, also by sys.exit().
    except BaseException as error:
        line = f'cannot import "{module}" of {option}: {describe_error(error)}'
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}."):
            line += f"; if it is yours, start in its directory, not in {in_shell(Path.cwd())}"
        raise UserError(line) from error


def game_name(env_id: str) -> str:
    """``Pong`` of ``ALE/Pong-v5``; the id itself of an environment that is no Atari game."""
    return env_id.removeprefix("ALE/").removesuffix("-v5") if env_id.startswith("ALE/") else env_id


def is_atari_id(env_id: str) -> bool:
    """Whether this id names one of ale-py's games.

    Raises:
        UserError: as :func:`find_spec`.
    """
    return env_id.startswith("ALE/") or is_atari(find_spec(env_id))


def is_atari(spec: EnvSpec) -> bool:
    """Whether this is one of ale-py's games."""
    return str(spec.entry_point).startswith("ale_py")


def atari_rom(env_id: str) -> str:
    """The ROM's name, such as ``ms_pacman``, of an id such as ``ALE/MsPacman-v5``.

    Raises:
        UserError: there is no such game; the message names the nearest, also for old ids such as
            ``PongNoFrameskip-v4``.
    """
    spec = gym.registry.get(env_id)
    if spec is None or not is_atari(spec) or _is_old_atari(spec):
        games = [name for name in gym.registry if re.fullmatch(r"ALE/\w+-v5", name)]
        raise UserError(
            f'unknown Atari game "{env_id}": games are named like "ALE/Pong-v5".'
            f"{nearest(env_id, games, key=_game)}"
        )
    rom: str = spec.kwargs["game"]
    if roms.get_rom_path(rom) is None:
        raise UserError(f'the ROM of "{env_id}" is not installed: reinstall ale-py')
    return rom


def _is_old_atari(spec: EnvSpec) -> bool:
    """``Pong-v4``, ``PongNoFrameskip-v4``: old ids, each with a protocol of its own."""
    return is_atari(spec) and spec.namespace != "ALE"


def _game(env_id: str) -> str:
    """The part of an id that identifies a game: ``pong`` of ``PongNoFrameskip-v4``."""
    return re.sub(r"^ALE/|(-ram)?(NoFrameskip|Deterministic)?-v\d+$", "", env_id).lower()
