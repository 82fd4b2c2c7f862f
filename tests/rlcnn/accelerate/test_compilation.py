"""A compiled function, also where nothing can be compiled."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from rlcnn.accelerate.compilation import Compiled, can_compile


def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@pytest.mark.parametrize("reason", ["no C++ compiler\nand more", ""])
def test_without_a_compiler_it_runs_as_it_stands_and_says_so_once(
    reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiled = []

    def failing(function: Any) -> Any:
        compiled.append(function)

        def call(*args: Any) -> Any:
            raise RuntimeError(reason)

        return call

    monkeypatch.setattr(torch, "compile", failing)
    run = Compiled(double, "update")
    with caplog.at_level(logging.WARNING):
        assert [run(torch.tensor(value)).item() for value in (1, 2, 3)] == [2, 4, 6]
    assert compiled == [double]
    (message,) = caplog.messages
    assert (
        message
        == f"the update runs uncompiled: {reason.splitlines()[0] if reason else 'RuntimeError'}"
    )


def test_what_the_function_itself_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    monkeypatch.setattr(torch, "compile", lambda function: function)
    with pytest.raises(ZeroDivisionError):
        Compiled(broken, "update")(torch.tensor(1))


def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def compile_(function: Any) -> Any:
        made.append(function)
        return lambda x: function(x) + 1

    monkeypatch.setattr(torch, "compile", compile_)
    run = Compiled(double, "update")
    assert [run(torch.tensor(value)).item() for value in (1, 2)] == [3, 5]
    assert made == [double]


def test_a_compiler_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not can_compile()
    (tmp_path / "g++").touch(0o755)
    assert can_compile()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not can_compile()
