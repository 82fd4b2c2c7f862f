"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from rlcnn.report.formatting import (
    duration,
    interval,
    number,
    p_value,
    percent,
    short_count,
    signed,
)

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    "value, told",
    [
        (0.623, "0.62"),
        (-0.001, "0.00"),
        (-20.71, f"{MINUS}20.7"),
        (1204.4, "1,204"),
        (math.inf, "∞"),
        (-math.inf, f"{MINUS}∞"),
        (math.nan, "\N{EN DASH}"),
    ],
)
def test_numbers_have_the_digits_that_count(value: float, told: str) -> None:
    assert number(value) == told


def test_a_sign_stands_before_all_that_is_not_zero() -> None:
    assert [signed(v) for v in (0.5, -0.5, 0.0, 0.004, -0.004)] == [
        "+0.50",
        f"{MINUS}0.50",
        "0.00",
        "0.00",
        "0.00",
    ]


def test_other_figures() -> None:
    assert interval(-1, 2.5, signed) == f"[{MINUS}1.00, +2.50]"
    assert [percent(share) for share in (0.944, 1.0, 0.0)] == ["94.4%", "100%", "0%"]
    assert [duration(s) for s in (4, 42, 720, 12_240, -42)] == [
        "4 s",
        "42 s",
        "12 min",
        "3.4 h",
        "-42 s",
    ]
    assert [short_count(n) for n in (0, 1100, 34_046, 907_019, 1_067_155)] == [
        "0",
        "1,100",
        "34.0k",
        "907k",
        "1.07M",
    ]
    assert [p_value(p) for p in (0.0079, 0.10, 2e-7)] == ["0.0079", "0.1", "2e-07"]
