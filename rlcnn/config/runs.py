"""The command line that starts or resumes a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from envs.errors import UserError
from rlcnn.config.cli import given_value, parse_options
from rlcnn.config.fields import fields_of
from rlcnn.runs.directory import RunDirectory

Config = TypeVar("Config")


@dataclass(frozen=True)
class RunOptions:
    """Run directory."""

    run_dir: Path | None = None
    """Directory of a new run; by default runs/ and a name built from the options."""
    config: Path | None = None
    """Take all defaults from the config.json of another run."""
    resume: Path | None = None
    """Resume the run in this directory; greater --total-steps or --epochs extend it."""


@dataclass(frozen=True)
class RunRequest(Generic[Config]):
    """What a command line asks for.

    Attributes:
        config: the configuration with all options.
        run_dir: where a new run goes; None for the default.
        resume: the run to resume; None for a new one.
        changes: options that differ from those of the run to resume.
    """

    config: Config
    run_dir: Path | None
    resume: Path | None
    changes: dict[str, Any]


def parse_run(
    options: type[RunOptions],
    config: type[Config],
    arguments: Sequence[str],
    read: Callable[[RunDirectory | Path], Config],
    preset_option: str,
    preset: Callable[[], Config],
) -> RunRequest[Config]:
    """Reads a command line whose defaults are a preset's, another configuration's, or a run's.

    Args:
        options: the dataclass of all options: :class:`RunOptions` and ``config``.
        config: the dataclass of a configuration.
        arguments: without the program's name.
        read: reads the configuration of a run or a file.
        preset_option: the option that names a preset, which ``--config`` excludes.
        preset: makes the preset that the arguments name.

    Raises:
        UserError: an option is unknown or excludes another, or a value is not of its type.
    """
    source, resumed = given_value(arguments, "--config"), given_value(arguments, "--resume")
    if resumed is not None:
        defaults = read(RunDirectory.open(resumed))
    elif source is None:
        defaults = preset()
    elif given_value(arguments, preset_option) is None:
        defaults = read(Path(source))
    else:
        raise UserError(f"--config and {preset_option} both say what the defaults are: give one")
    default = options(**fields_of(config, defaults))
    parsed = parse_options(options, arguments, default)
    if parsed.resume is not None and (parsed.config is not None or parsed.run_dir is not None):
        raise UserError("--resume continues a run in place: leave out --config and --run-dir")
    values, before = fields_of(config, parsed), fields_of(config, default)
    changes = {name: value for name, value in values.items() if value != before[name]}
    return RunRequest(config(**values), parsed.run_dir, parsed.resume, changes)
