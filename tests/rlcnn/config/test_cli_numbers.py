"""Command lines: numbers as people write them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from envs.errors import UserError
from rlcnn.config.cli import parse_options


@dataclass(frozen=True)
class Options:
    """Options of every kind that holds whole numbers."""

    steps: int = 0
    """How many."""
    size: int | None = None
    """How large."""
    seeds: tuple[int, ...] = ()
    """Which."""
    rate: float = 0.5
    """How fast."""
    more: dict[str, int | float | bool | str] = field(default_factory=dict)
    """What else."""


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e6", 10**6), ("2E3", 2000), ("2_000_000", 2 * 10**6), ("1.5e1", 15), ("-1e1", -10)],
)
def test_whole_numbers_may_be_written_in_powers_of_ten(text: str, number: int) -> None:
    arguments = ["--steps", text, "--size", text, "--seeds", text, "3", "--rate", text]
    options = parse_options(Options, arguments)
    assert (options.steps, options.size, options.seeds) == (number, number, (number, 3))
    assert options.rate == number


@pytest.mark.parametrize("text", ["1.5", "1e-1", "1.5e0", "1e400", "inf", "nan", "1.0", "e5"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a whole number"):
        parse_options(Options, ["--steps", text])
    with pytest.raises(UserError, match="neither a whole number nor None"):
        parse_options(Options, ["--size", text])


def test_options_of_several_types_keep_theirs() -> None:
    more = ["--more", "a", "2", "b", "1e-3", "c", "True", "d", "4x4"]
    assert parse_options(Options, more).more == {"a": 2, "b": 1e-3, "c": True, "d": "4x4"}
