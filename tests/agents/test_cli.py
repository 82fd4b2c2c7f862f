"""What is read off a command line before it is parsed."""

from __future__ import annotations

import pytest

from agents.cli import given_value


@pytest.mark.parametrize(
    "arguments, value",
    [
        ("--suite-scale tiny", "tiny"),
        ("--suite-scale=tiny", "tiny"),
        ("--suite_scale tiny", "tiny"),
        ("--suite_scale=a_b=c", "a_b=c"),
        ("--suite-scale full --suite-scale tiny", "tiny"),
        ("--suite-scale --json x", None),
        ("--suite-scale", None),
        ("--suite tiny", None),
    ],
)
def test_an_options_value_is_the_last_one_given(arguments: str, value: str | None) -> None:
    assert given_value(arguments.split(), "--suite-scale") == value
