"""Options of training that an arm of a study carries: ``scratch::preset=iqn,num_envs=4``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, get_args

from agents.config import TrainConfig
from agents.hyperparameters import Algorithm
from agents.presets import preset_config
from envs.errors import UserError, nearest
from rlcnn.config.cli import parse_options
from rlcnn.config.fields import option_name
from rlcnn.config.options import list_options

# All other options are equal for all arms: a comparison needs the same games, lengths and scores.
_ALLOWED = (
    *("preset", "algo", "num_envs", "env_groups", "overlap", "precision", "encoder"),
    *("obs", "obs_size", "frame_stack"),
    *("finetune_factor", "head_factor", "unfreeze_from", "unfreeze_at_step", "feature_dtype"),
)
# Options of a training that a study sets otherwise.
_SET_BY_STUDY = {
    "env": "--games names the games of all arms",
    "mode": "scratch, frozen and finetune say how the encoder learns",
    "weights": "they are written in the arm, finetune:WEIGHTS",
    "encoder_options": "they are written behind the encoder, scratch:impala,width=2",
}
_SECTIONS: tuple[str, ...] = get_args(Algorithm)


def parse_options_of(arm: str, text: str) -> dict[str, str]:
    """Reads ``OPTION=VALUE,...`` behind the "::" of an arm; options with underscores.

    Raises:
        UserError: it has another form, or an option is unknown or not for arms.
    """
    options: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not (name and equals and value):
            raise UserError(f'--arms "{arm}": "{pair}" is no option: expected OPTION=VALUE')
        if name in options:
            raise UserError(f'--arms "{arm}" gives option "{name}" twice')
        _check_allowed(arm, name)
        options[name] = value.strip()
    return options


def with_preset(
    base: TrainConfig, options: Mapping[str, str], explicit: Collection[str] = ()
) -> TrainConfig:
    """``base`` with the defaults of an arm's preset and algorithm, if the arm names one.

    The preset sets the number of environments, the encoder and the sections of the algorithms. What
    differs in ``base`` from its own preset still counts, and so do the ``explicit`` options of the
    study, such as "num_envs" or "dqn.n_steps", which may have the values of that preset.

    Raises:
        UserError: a preset or algorithm is unknown, or they contradict each other.
    """
    if not {"preset", "algo"} & options.keys():
        return base
    preset = options.get("preset", base.preset)
    # An algorithm of the study's own would contradict a preset of one algorithm.
    chosen = preset_config(preset, options.get("algo"))
    usual = preset_config(base.preset, base.algo)
    changes: dict[str, Any] = {"preset": chosen.preset, "algo": chosen.algo}
    for name in ("num_envs", "encoder"):
        given = getattr(base, name)
        own = name in explicit or given != getattr(usual, name)
        changes[name] = given if own else getattr(chosen, name)
    changes["encoder_options"] = _options_of_encoder(changes["encoder"], base, usual, chosen)
    for name in _SECTIONS:
        given, default = (vars(getattr(config, name)) for config in (base, usual))
        own_values = _differing(given, default)
        own_values |= {n: v for n, v in given.items() if f"{name}.{n}" in explicit}
        changes[name] = replace(getattr(chosen, name), **own_values)
    return replace(base, **changes)


def explicit_defaults(base: TrainConfig, given: Collection[str]) -> tuple[str, ...]:
    """The ``given`` options of a study whose values in ``base`` are those of its preset.

    Only those that a preset of an arm would replace; see :func:`with_preset`.
    """
    usual = preset_config(base.preset, base.algo)
    names = [
        name for name in ("num_envs", "encoder") if getattr(base, name) == getattr(usual, name)
    ]
    for section in _SECTIONS:
        values, default = (vars(getattr(config, section)) for config in (base, usual))
        names += [f"{section}.{name}" for name, value in values.items() if value == default[name]]
    return tuple(name for name in names if name in given)


def _options_of_encoder(
    encoder: str, base: TrainConfig, usual: TrainConfig, chosen: TrainConfig
) -> dict[str, Any]:
    """The options of an arm's encoder; those of another encoder do not apply to it."""
    given, default, preset = (
        config.encoder_options if config.encoder == encoder else {}
        for config in (base, usual, chosen)
    )
    return {**preset, **_differing(given, default)}


def _differing(given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in given.items() if n not in default or v != default[n]}


def with_options(config: TrainConfig, options: Mapping[str, str], where: str) -> TrainConfig:
    """``config`` with an arm's options in place of its own.

    Raises:
        UserError: a value is not valid; the line begins with ``where``.
    """
    given = {name: value for name, value in options.items() if name not in ("preset", "algo")}
    if not given:
        return config
    try:
        arguments = [part for each in given.items() for part in _arguments(*each)]
        # The environment must not replace the study's own ``track``.
        return replace(parse_options(TrainConfig, arguments, config), track=config.track)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def check_effects(config: TrainConfig, options: Mapping[str, str], where: str) -> None:
    """Refuses options that an arm's training ``config`` does not use.

    Raises:
        UserError: an option has no effect; the line begins with ``where``.
    """
    for name in options:
        section, dot, _ = name.partition(".")
        if dot and section != config.algo:
            raise UserError(
                f"{where}: {name} has no effect: this arm learns by {config.algo}, not {section}"
            )
    if "finetune_factor" in options and config.mode != "finetune":
        raise UserError(f"{where}: finetune_factor has no effect: it is for finetune:WEIGHTS")


def _arguments(name: str, value: str) -> list[str]:
    """An option as on a command line, where a switch takes no value."""
    names = _switches().get(name)
    if names is None:
        return [option_name(name), value]
    if value.lower() not in ("true", "false"):
        raise UserError(f'{name} "{value}" is unknown: expected true or false')
    return [names[0] if value.lower() == "true" else names[1]]


@cache
def _switches() -> dict[str, list[str]]:
    """Field of each switch -> its options, on and off."""
    return {each.field: each.names for each in list_options(TrainConfig) if each.kind is bool}


def _check_allowed(arm: str, name: str) -> None:
    section, dot, rest = name.partition(".")
    if dot and section in _SECTIONS:
        known = [field.name for field in fields(getattr(TrainConfig(), section))]
        if rest in known:
            return
        near = nearest(rest, known).replace('"', f'"{section}.', 1)
        raise UserError(f'--arms "{arm}": option "{name}" is unknown.{near}')
    if name in _ALLOWED:
        return
    if name in _SET_BY_STUDY:
        raise UserError(f'--arms "{arm}": {name} is no option of an arm: {_SET_BY_STUDY[name]}')
    if any(field.name == name for field in fields(TrainConfig)):
        raise UserError(
            f'--arms "{arm}": {name} must be equal for all arms: give {option_name(name)} to the'
            " study"
        )
    names = [*_ALLOWED, *(f"{algo}.n_steps" for algo in _SECTIONS)]
    raise UserError(f'--arms "{arm}": option "{name}" is unknown.{nearest(name, names)}')
