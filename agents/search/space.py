"""The space of a search: the options that it varies, each with its values or its range.

Nothing here needs torch or Optuna, so that a command line is refused quickly.
"""

from __future__ import annotations

import math
import random
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from agents.config import TrainConfig
from envs.errors import UserError
from rlcnn.config.diagnosis import problem_with_value
from rlcnn.config.fields import OptionValue, check_value, named_value
from rlcnn.config.hints import hint_at_option
from rlcnn.config.options import Option, list_options

if TYPE_CHECKING:
    from optuna import Trial

Kind = Literal["choice", "range", "log"]
Values = dict[str, OptionValue]
"""A value for each option of a space, by its name such as ``ppo.learning-rate``."""

FORMS = "NAME VALUE VALUE ..., NAME range LOW HIGH [STEP] or NAME log LOW HIGH"

_ENCODER_OPTION = "encoder-options."
_SWITCHES = {"on": True, "off": False, "true": True, "false": False}

_OTHER_TASK = "it changes the task, so scores could not be compared"
_MEASURES = "it changes how trials are measured, so scores could not be compared"
_NO_EFFECT = "it has no effect on what is learned"
_NOT_SEARCHED = {
    **dict.fromkeys(("env", "env_wrapper", "obs_key", "protocol"), _OTHER_TASK),
    **dict.fromkeys(
        ("eval_every", "eval_episodes", "interim_episodes", "interim_max_steps"), _MEASURES
    ),
    **dict.fromkeys(
        (
            *("video_every", "checkpoint_every", "keep_checkpoints", "save_replay"),
            *("track", "tracker", "project", "log_model"),
        ),
        _NO_EFFECT,
    ),
    "seed": "trials have one seed, and the finalists are trained with others (--final-seeds)",
    "preset": "it sets only defaults; search the options themselves",
    "num_threads": "the launcher sets it for all trials",
}


@dataclass(frozen=True)
class Dimension:
    """An option that a search varies.

    Attributes:
        name: of the option, without its dashes: ``ppo.learning-rate``, ``encoder-options.width``.
        kind: "choice" among the values, or a "range" between two values, also in "log" scale.
        values: the choices, or the two ends of the range.
        step: between the values of a range; None for a continuous one, and for whole numbers 1.
    """

    name: str
    kind: Kind
    values: tuple[OptionValue, ...]
    step: float | None = None

    @property
    def text(self) -> str:
        """The dimension as :func:`parse_dimension` reads it."""
        words = [*([] if self.kind == "choice" else [self.kind]), *map(written, self.values)]
        return shlex.join([self.name, *words, *([] if self.step is None else [written(self.step)])])

    @property
    def whole(self) -> bool:
        """Whether all its values are whole numbers."""
        return all(type(value) is int for value in (*self.values, self.step or 1))

    @property
    def size(self) -> float:
        """The number of its values; infinite for a continuous range."""
        if self.kind == "choice":
            return len(self.values)
        if self.step is None and not self.whole:
            return math.inf
        low, high = self._ends
        return math.floor((high - low) / (self.step or 1) + 1e-9) + 1

    def suggest(self, trial: Trial) -> OptionValue:
        """The value that Optuna proposes; the same one when it is asked again."""
        return self.rounded(self._suggest(trial))

    def _suggest(self, trial: Trial) -> OptionValue:
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, list(self.values))
        low, high = self._ends
        log = self.kind == "log"
        if self.whole:
            return trial.suggest_int(
                self.name, int(low), int(high), step=int(self.step or 1), log=log
            )
        return trial.suggest_float(self.name, low, high, step=self.step, log=log)

    def rounded(self, value: OptionValue) -> OptionValue:
        """A number of a range as one that people can type: 4 digits, unless a step gives more."""
        if self.kind == "choice" or not isinstance(value, float):
            return value
        low, high = self._ends
        return min(max(float(f"{value:.{12 if self.step else 4}g}"), low), high)

    def listed(self) -> list[OptionValue]:
        """Its values, if there are finitely many."""
        if self.kind == "choice":
            return list(self.values)
        low, step = self.values[0], self.step or 1
        return [self.rounded(low + number * step) for number in range(int(self.size))]  # type: ignore[operator]

    def drawn(self, generator: random.Random) -> OptionValue:
        """One of its values at random."""
        if self.size < math.inf:
            return generator.choice(self.listed())
        return self.rounded(generator.uniform(*self._ends))

    def holds(self, value: OptionValue) -> bool:
        """Whether a value is one that a trial may have."""
        if self.kind == "choice":
            return any(type(one) is type(value) and one == value for one in self.values)
        if type(value) not in (int, float) or (self.whole and type(value) is not int):
            return False
        low, high = self._ends
        number = float(value)  # type: ignore[arg-type]
        steps = (number - low) / (self.step or 1)
        return low <= number <= high and (self.step is None or abs(steps - round(steps)) < 1e-9)

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = self.values
        if self.step:
            # The last value within the range.
            high = low + self.step * math.floor((high - low) / self.step + 1e-9)  # type: ignore
        return low, high  # type: ignore[return-value]


def written(value: OptionValue) -> str:
    """A value as on a command line: ``0.0003``, ``on``, ``nature``."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) and value == float(f"{value:g}") else str(value)


def parse_space(dimensions: Iterable[Sequence[str]]) -> tuple[Dimension, ...]:
    """Reads the uses of ``--search``, each given by its words.

    Raises:
        UserError: there are none, one is invalid, or two are of the same option.
    """
    space = tuple(map(parse_dimension, dimensions))
    if not space:
        raise UserError(
            f"--search is missing: expected {FORMS}, such as --search ppo.n-epochs 2 3 4"
        )
    for name in (dimension.name for dimension in space):
        if sum(other.name == name for other in space) > 1:
            raise UserError(f'--search names "{name}" twice: give all its values at once')
    return space


def parse_dimension(words: Sequence[str]) -> Dimension:
    """Reads one use of ``--search``.

    ::

        ppo.n-epochs 2 3 4              one of these values
        ppo.gamma range 0.98 0.999      any number between these, the ends included
        ppo.n-epochs range 2 10 2       2, 4, 6, 8 or 10
        ppo.learning-rate log 1e-4 1e-3 any number between these, with equal chances for factors

    Raises:
        UserError: the option is unknown or not for a search, or its values are not valid.
    """
    # An option of an encoder keeps its underscores.
    section, dot, last = words[0].removeprefix("--").partition(".")
    section = section.replace("_", "-")
    name = section + dot + (last if f"{section}." == _ENCODER_OPTION else last.replace("_", "-"))
    option = None if name.startswith(_ENCODER_OPTION) else _option(words[0], name)
    texts = list(words[1:])
    kind: Kind = "choice"
    numeric = option is None or option.kind in (int, float)
    if texts and texts[0] in ("range", "log") and numeric:
        kind = "range" if texts.pop(0) == "range" else "log"
    values = [_value(name, option, text) for text in texts]
    dimension = _choice(name, values) if kind == "choice" else _range(name, kind, values)
    for value in dimension.values:
        _check(dimension, option, value)
    return dimension


def configured(base: TrainConfig, values: Mapping[str, OptionValue]) -> TrainConfig:
    """``base`` with values of a space.

    As on a command line, options of the encoder in ``base`` do not apply to another encoder.
    """
    if values.get("encoder", base.encoder) != base.encoder:
        base = replace(base, encoder_options={})
    options = {
        name.removeprefix(_ENCODER_OPTION): value
        for name, value in values.items()
        if name.startswith(_ENCODER_OPTION)
    }
    base = replace(base, encoder_options={**base.encoder_options, **options})
    for name, value in values.items():
        if not name.startswith(_ENCODER_OPTION):
            base = _with(base, name.replace("-", "_").split("."), value)
    return base


def current_values(base: TrainConfig, space: Sequence[Dimension]) -> Values | None:
    """The values that ``base`` has; None if the space does not hold them."""
    values: Values = {}
    # An option may stand for another value, such as a batch size of 0, or have the algorithm's.
    config = base.with_defaults()
    for dimension in space:
        if dimension.name.startswith(_ENCODER_OPTION):
            option = dimension.name.removeprefix(_ENCODER_OPTION)
            if option not in config.encoder_options:
                return None
            value: Any = config.encoder_options[option]
        else:
            path: Any = dimension.name.replace("-", "_").split(".")
            value = reduce(getattr, path, base)
            if not dimension.holds(value):
                value = reduce(getattr, path, config)
        if not dimension.holds(value):
            return None
        values[dimension.name] = dimension.rounded(value)
    return values


def combinations(space: Iterable[Dimension]) -> float:
    """The number of different trials in a space; infinite with a continuous range."""
    return math.prod(dimension.size for dimension in space)


def _with(config: Any, path: Sequence[str], value: Any) -> Any:
    """A dataclass with one field, perhaps of a section, replaced."""
    name, *rest = path
    return replace(config, **{name: _with(getattr(config, name), rest, value) if rest else value})


def _option(given: str, name: str) -> Option:
    options = {option.name: option for option in list_options(TrainConfig)}
    option = options.get(f"--{name}")
    if option is None:
        hint = hint_at_option(f"--{name}", options).replace('"--', '"')
        raise UserError(f'--search "{given}": unknown option.{hint}')
    if option.field == "encoder_options":
        raise UserError(
            f'--search "{given}": name one option of the encoder, such as "encoder-options.width"'
        )
    if reason := _NOT_SEARCHED.get(option.field):
        raise UserError(f'--search "{given}" is not possible: {reason}')
    if option.takes > 1 or option.arg.repeatable:
        raise UserError(f'--search "{given}" is not possible: the option takes several values')
    return option


def _value(name: str, option: Option | None, text: str) -> OptionValue:
    if not text:
        raise UserError(f'--search {name}: a value is empty ("")')
    if option is None:
        return {"on": True, "off": False}.get(text, named_value(text))
    if option.kind is bool:
        if text.lower() not in _SWITCHES:
            raise UserError(f'--search {name}: "{text}" is unknown: expected on or off')
        return _SWITCHES[text.lower()]
    if problem := problem_with_value(option, text):
        raise UserError(f"--search {name}: {problem}".rstrip("."))
    value: OptionValue = option.convert_one(text)
    return value


def _choice(name: str, values: Sequence[OptionValue]) -> Dimension:
    if not values:
        raise UserError(f"--search {name} has no values: expected {FORMS}")
    if len(values) == 1:
        raise UserError(
            f"--search {name} leaves nothing to search: expected at least 2 values; a fixed one is"
            f" --{name} {written(values[0])}"
        )
    for place, value in enumerate(values):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--search {name}: {value} is not finite")
        if any(type(one) is type(value) and one == value for one in values[:place]):
            raise UserError(f"--search {name} gives {written(value)} twice")
    return Dimension(name, "choice", tuple(values))


def _range(name: str, kind: Kind, values: Sequence[OptionValue]) -> Dimension:
    shown = " ".join([kind, *map(written, values)])
    form = "range LOW HIGH [STEP]" if kind == "range" else "log LOW HIGH"
    if len(values) not in ((2, 3) if kind == "range" else (2,)):
        raise UserError(f'--search {name} "{shown}": expected {form}')
    for value in values:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise UserError(
                f'--search {name} "{shown}": {written(value)} is no number: expected {form}'
            )
    low, high, *steps = values
    if low >= high:  # type: ignore[operator]
        raise UserError(f'--search {name} "{shown}" is empty: expected LOW below HIGH')
    if kind == "log" and low <= 0:  # type: ignore[operator]
        raise UserError(
            f'--search {name} "{shown}": a log range begins above 0, since it goes by factors;'
            f" take range {written(low)} {written(high)}, or a LOW above 0"
        )
    step = steps[0] if steps else None
    if step is not None and not 0 < step <= high - low:  # type: ignore[operator]
        raise UserError(
            f'--search {name} "{shown}": STEP {written(step)} must be more than 0 and at most'
            f" {written(high - low)}"  # type: ignore[operator]
        )
    return Dimension(name, kind, (low, high), step)  # type: ignore[arg-type]


def _check(dimension: Dimension, option: Option | None, value: OptionValue) -> None:
    """Checks a value by the annotation of its field."""
    if option is None:
        return
    if option.kind is float and type(value) is int:
        value = float(value)
    hint = get_type_hints(option.holder, include_extras=True)[option.field.split(".")[-1]]
    try:
        check_value(option.field, value, hint)
    except UserError as error:
        raise UserError(f"--search {dimension.text}: {error}") from error
