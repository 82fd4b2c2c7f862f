"""The parts of hypothesis that tests use; without it, property tests are skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["array_shapes", "arrays", "given", "settings", "st"]

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import array_shapes, arrays
except ImportError:

    class _Anything:
        """Replaces strategies and settings, which no skipped test reads."""

        def __getattr__(self, name: str) -> Any:
            return _Anything()

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return _Anything()

    array_shapes = arrays = st = _Anything()

    def settings(**options: Any) -> Callable[[Any], Any]:
        """Returns the test unchanged."""
        return lambda test: test

    def given(*args: Any, **kwargs: Any) -> Callable[[Callable[..., None]], Callable[[], None]]:
        """Replaces the test by one that skips itself."""

        def decorate(test: Callable[..., None]) -> Callable[[], None]:
            def skipped() -> None:
                pytest.skip("needs hypothesis")

            return skipped

        return decorate
else:
    # The time of an example depends on the machine more than on the code.
    settings.register_profile("rlcnn", deadline=None)
    settings.load_profile("rlcnn")
