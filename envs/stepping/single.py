"""One Gymnasium environment from its configuration, with errors of one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TransformObservation

from envs.config import EnvConfig
from envs.errors import (
    EnvironmentFailure,
    UserError,
    describe_error,
    nearest,
)
from envs.registry import find_spec, import_users_module
from envs.stepping.checked import IMAGES, is_image_space, shown_space, warn_once


def make_env(
    config: EnvConfig, spec: EnvSpec | None = None, render_mode: str | None = None
) -> gym.Env:
    """One environment with its wrappers; of a ``Dict`` of observations it shows the image alone.

    Args:
        config: the environment.
        spec: its entry in the registry; by default that of ``config.env_id``.
        render_mode: replaces that of ``config.kwargs``.

    Raises:
        UserError: the id is unknown, a dependency of the environment is not installed, or its
            arguments, a wrapper or the key are not valid.
    """
    options = dict(config.kwargs)
    # Some environments do not have the argument, and gym.make would pass None to them.
    if render_mode is not None:
        # Gymnasium's checker does not render with a render_fps of 0.
        options |= {"render_mode": render_mode, "disable_env_checker": True}
    spec = spec or find_spec(config.env_id)
    try:
        env = gym.make(spec, **options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        known = isinstance(error, gym.error.Error | ImportError)
        reason = " ".join(str(error).split()) if known else describe_error(error)
        given = "".join(f" {name} {value}" for name, value in config.kwargs.items())
        where = f" with --env-kwargs{given}" if given else ""
        line = f'cannot make the environment "{config.env_id}"{where}: {reason}'
        raise UserError(line) from error
    return wrap(env, config)


def wrap(env: gym.Env, config: EnvConfig) -> gym.Env:
    """The environment in the wrappers of a configuration, with its image for observations.

    Raises:
        UserError: a wrapper cannot be imported or fails, or the key is not valid.
    """
    return _with_image(reduce(_wrapped, config.wrappers, env), config)


def _wrapped(env: gym.Env, name: str) -> gym.Env:
    wrapper = _find_wrapper(name)
    try:
        wrapped = wrapper(env)
    except KeyboardInterrupt:
        raise
    # A wrapper may raise anything, also by sys.exit().
    except BaseException as error:
        described = describe_error(error)
        # As those of Gymnasium that show what is rendered.
        unrendered = env.render_mode in (None, "human") and "render" in str(error).lower()
        hint = ". Give --env-kwargs render_mode rgb_array" if unrendered else ""
        raise UserError(f'--env-wrapper "{name}" raised {described}{hint}') from error
    if not isinstance(wrapped, gym.Env):
        raise UserError(
            f'--env-wrapper "{name}" made a {type(wrapped).__name__}: expected a gymnasium.Env'
        )
    return wrapped


def _find_wrapper(name: str) -> Callable[[gym.Env], Any]:
    if len(names := re.findall(r"[^\s,;\[\]()'\"]+", name)) > 1:
        repeated = " ".join(f"--env-wrapper {each}" for each in names)
        raise UserError(
            f'--env-wrapper "{name}" names several wrappers: repeat the option, {repeated}'
        )
    module, _, path = name.rpartition(":")
    if not module or not path or "/" in module or module.endswith(".py"):
        raise UserError(
            f'--env-wrapper "{name}": expected module:Wrapper, as import names the module, such as'
            " gymnasium.wrappers:AddRenderObservation"
        )
    found = import_users_module(module, f'--env-wrapper "{name}"')
    for part in path.split("."):
        if not hasattr(found, part):
            hint = nearest(part, [known for known in dir(found) if not known.startswith("_")])
            raise UserError(f'--env-wrapper "{name}": "{module}" has no "{path}".{hint}')
        found = getattr(found, part)
    if not callable(found):
        raise UserError(
            f'--env-wrapper "{name}" is a {type(found).__name__}: expected a wrapper, or a function'
            " that takes an environment and returns one"
        )
    return found


def _with_image(env: gym.Env, config: EnvConfig) -> gym.Env:
    """The environment with the chosen image of its ``Dict`` of observations."""
    space, key = getattr(env, "observation_space", None), config.obs_key
    if not isinstance(space, spaces.Dict):
        if key:
            raise UserError(
                f'--obs-key "{key}": "{config.env_id}" has no Dict of observations but a'
                f" {type(space).__name__}; leave the option out"
            )
        return env
    images = [name for name, part in space.items() if is_image_space(part)]
    if key and key not in space.keys():  # noqa: SIM118 - a Dict space itself has no `in`
        hint = nearest(key, list(space))
        raise UserError(f'--obs-key "{key}": "{config.env_id}" observes {_keys(space)}.{hint}')
    if not images or (key and key not in images):
        given = f'--obs-key "{key}": ' if key else ""
        parts = ", ".join(f"{name} ({shown_space(part)})" for name, part in space.items())
        known = f"; --obs-key {' or '.join(images)} is one" if images else ""
        raise UserError(
            f'{given}"{config.env_id}" observes {parts}: expected images, {IMAGES}{known}'
        )
    if not key and len(images) > 1:
        found = f"several images: give --obs-key {' or '.join(images)}"
        raise UserError(f'"{config.env_id}" observes {_keys(space)}: {found}')
    if not key:
        key = images[0]
        warn_once(f'"{config.env_id}": the agent observes "{key}" alone, its only image')

    def image(observation: Any) -> Any:
        if isinstance(observation, Mapping) and key in observation:
            return observation[key]
        found = type(observation).__name__
        if isinstance(observation, Mapping):
            found = f"Dict of {', '.join(map(str, observation)) or 'nothing'}"
        raise EnvironmentFailure(
            f'"{config.env_id}" gives an observation, a {found}, without "{key}", which its space'
            " declares"
        )

    return TransformObservation(env, image, space[key])


def _keys(space: spaces.Dict) -> str:
    return ", ".join(map(str, space))
