"""Numbers as a report writes them, and the styles of arms in figures."""

from __future__ import annotations

import math

import pytest

from rlcnn.report.style import (
    arm_styles,
    duration,
    elided,
    interval,
    number,
    p_value,
    percent,
    plural,
    short_count,
    signed,
    signed_count,
    signed_duration,
)

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    "value, expected",
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
def test_numbers_have_three_significant_digits(value: float, expected: str) -> None:
    assert number(value) == expected


def test_every_number_but_zero_has_a_sign() -> None:
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
    assert [plural(count, "run") for count in (1, 2000)] == ["1 run", "2,000 runs"]
    assert [signed_count(n) for n in (34_046, 0, -1100)] == ["+34.0k", "0", f"{MINUS}1,100"]
    assert [signed_duration(s) for s in (720, -42, math.inf)] == ["+12 min", f"{MINUS}42 s", "+∞"]


def test_no_two_arms_share_a_style_and_the_control_is_grey() -> None:
    arms = [f"arm {number}" for number in range(20)]
    given = arm_styles(arms, "arm 3")
    assert list(given) == arms
    assert len(set(given.values())) == 20
    greys = [arm for arm, style in given.items() if style.colour[1:3] == style.colour[3:5]]
    assert greys == ["arm 3"]


def test_the_style_of_an_arm_does_not_depend_on_later_arms() -> None:
    assert arm_styles(["a", "b", "c"], "a")["b"] == arm_styles(["a", "b"], "a")["b"]


def test_long_names_lose_their_middle() -> None:
    assert elided("scratch", 10) == "scratch"
    short = elided("finetune:resnet18:layer2,pooling=mean@best", 20)
    assert len(short) == 20
    assert short.startswith("finetune:res")
    assert short.endswith("@best")
