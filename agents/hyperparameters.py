"""Hyperparameters of any algorithm: the base class, as training runs use it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

Algorithm = Literal["ppo", "dqn", "pqn"]
ScheduleName = Literal["constant", "linear"]


@dataclass(frozen=True)
class Hyperparameters:
    """Base of the sections of options, one for each algorithm; steps are agent steps.

    Fields have the names of the agent's arguments. A field ``NAME_schedule`` says how
    ``NAME`` changes over the run.

    Attributes:
        round_name: what comes before each update: "rollouts".
        round_option: the option that shortens it.
    """

    round_name: ClassVar[str]
    round_option: ClassVar[str]

    def to_arguments(self) -> dict[str, Any]:
        """The agent's keyword arguments; linear schedules reach 0 at the end of the run."""
        # Here, not above: importing it imports torch, and --help needs neither.
        from stable_baselines3.common.utils import LinearSchedule

        arguments = dataclasses.asdict(self)
        for field in dataclasses.fields(self):
            name, suffix, _ = field.name.partition("_schedule")
            if suffix and arguments.pop(field.name) == "linear":
                arguments[name] = LinearSchedule(arguments[name], 0.0, end_fraction=1.0)
        return arguments

    def with_defaults(self, num_envs: int | None) -> Self:
        """The same with every default that depends on the number of environments filled in.

        ``num_envs`` is None for an algorithm that is not used: its default is then the same for
        every run, since runs are compared by all their options.
        """
        return self

    def check_together(self) -> None:
        """Refuses options that contradict each other, by a UserError."""

    def check_training(self, num_envs: int, frozen: bool) -> None:
        """Refuses what ``num_envs`` environments or a ``frozen`` encoder rule out: a UserError."""

    @property
    def in_baseline(self) -> bool:
        """Whether stable-baselines3's own class can learn alike."""
        return True

    @property
    def warm_up_steps(self) -> int:
        """Environment steps before the first update that rounds do not count."""
        return 0

    @property
    def samples_per_step(self) -> float:
        """Samples that an agent learns from for each environment step."""
        raise NotImplementedError

    def round_steps(self, num_envs: int) -> int:
        """Environment steps between two updates."""
        raise NotImplementedError

    def timed_steps(self, num_envs: int) -> int:
        """The fewest environment steps to time at once: whole rounds with their updates."""
        return self.round_steps(num_envs)

    def last_step(self, total_steps: int, num_envs: int, step: int) -> int:
        """The step at which a run that begins at ``step`` ends: at least ``total_steps``."""
        raise NotImplementedError

    def notes(self, end: int, step: int, stored_steps: int) -> list[str]:
        """Lines on hyperparameters that a run from ``step`` to ``end`` makes useless.

        ``stored_steps`` is what a replay holds at ``step``.
        """
        return []

    def with_short_warm_up(self, num_envs: int) -> Self:
        """The same updates after the shortest possible warm-up, to be timed."""
        return self

    def without_learning(self) -> Self:
        """The same with the least storage, for an agent that will only play."""
        return self

    def in_vector_steps(self, num_envs: int) -> Self:
        """The same updates in stable-baselines3's units, which count steps of the whole vector."""
        return self

    def describe(self, environments: str) -> str:
        """A round and its updates in a few words that begin with ``environments``."""
        raise NotImplementedError


def round_up(steps: int, unit: int) -> int:
    """``steps`` rounded up to a multiple of ``unit``."""
    return -(-steps // unit) * unit
