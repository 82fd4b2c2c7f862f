"""A function compiled by torch's inductor, or run uncompiled where that is not possible."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

from envs.errors import first_line

R = TypeVar("R")

_log = logging.getLogger(__name__)


class Compiled(Generic[R]):
    """A function of tensors that is compiled at its first call, and at every new shape.

    That takes about half a minute on a CPU, and needs a C++ compiler and Python's headers. Without
    them, one line says so and the function, ``what`` in messages, runs uncompiled.
    """

    def __init__(self, function: Callable[..., R], what: str) -> None:
        self._function = function
        self._what = what
        self._call: Callable[..., R] | None = None

    def __call__(self, *args: Any) -> R:
        """What the function returns."""
        if self._call is not None:
            return self._call(*args)
        _log.info("compiling the %s", self._what)
        began = time.monotonic()
        compiled = torch.compile(self._function)
        try:
            result = compiled(*args)
        except Exception as error:
            # An uncompiled call shows whether the function itself is to blame.
            result = self._function(*args)
            _log.warning("the %s runs uncompiled: %s", self._what, first_line(error))
            self._call = self._function
            return result
        _log.info("compiled in %.0f s", time.monotonic() - began)
        self._call = compiled
        return result


def can_compile() -> bool:
    """Whether this machine seems to have the C++ compiler that torch's inductor needs."""
    chosen = os.environ.get("CXX")
    return any(shutil.which(name) for name in ((chosen,) if chosen else ("g++", "clang++", "c++")))
