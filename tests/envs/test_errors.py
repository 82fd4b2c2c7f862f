"""Errors are one line, whatever the names and messages in them hold."""

from __future__ import annotations

import pickle

import pytest

from envs.errors import EnvironmentFailure, UserError, describe_error


@pytest.mark.parametrize(
    "name, shown",
    [
        ("new\nline.png", r"new\nline.png"),
        ("\x1b[31mred.png", r"\x1b[31mred.png"),
        ("tab\t.png", r"tab\t.png"),
        # A name that is not in UTF-8.
        (b"\xff.png".decode(errors="surrogateescape"), r"\udcff.png"),
        ("日本 é.png", "日本 é.png"),
        (r"C:\new", r"C:\new"),
    ],
)
def test_a_name_breaks_no_line_and_colours_no_terminal(name: str, shown: str) -> None:
    error = EnvironmentFailure(f'"{name}" is not there')
    assert str(error) == f'"{shown}" is not there'
    # As it comes from another process.
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (EnvironmentFailure, str(error))
    assert isinstance(error, UserError)


def test_a_message_that_cannot_be_had_or_never_ends_is_still_a_line() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert describe_error(MuteError()) == "MuteError"
    assert len(describe_error(ValueError("x" * 100_000))) < 1000
