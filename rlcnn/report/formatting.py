"""Numbers as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Callable

# A typographic minus: a hyphen is easily missed.
_MINUS = "\N{MINUS SIGN}"
_NOTHING = "\N{EN DASH}"


def number(value: float) -> str:
    """Three digits that count, and no more decimals than two: 0.62, 17.7, 1,204."""
    if not math.isfinite(value):
        return _NOTHING if math.isnan(value) else "∞" if value > 0 else f"{_MINUS}∞"
    size = abs(value)
    decimals = 2 if size < 10 else 1 if size < 100 else 0
    text = f"{size:,.{decimals}f}"
    return f"{_MINUS}{text}" if value < 0 and float(text.replace(",", "")) else text


def signed(value: float) -> str:
    """:func:`number` with a sign also where it is positive."""
    text = number(value)
    rounded_away = not any(digit in "123456789∞" for digit in text)
    return text if text.startswith(_MINUS) or rounded_away else f"+{text}"


def interval(low: float, high: float, written: Callable[[float], str] = number) -> str:
    """``[low, high]``."""
    return f"[{written(low)}, {written(high)}]"


def percent(share: float) -> str:
    """A share in per cent, with a decimal where there is one."""
    return f"{round(100 * share, 1):g}%"


def duration(seconds: float) -> str:
    """``42 s``, ``12 min``, ``3.4 h``."""
    size = abs(seconds)
    if size < 90:
        return f"{number(seconds).removesuffix('.00')} s" if size < 10 else f"{seconds:.0f} s"
    if size < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def counted(steps: float) -> str:
    """Steps in full: 2,000,896."""
    return f"{steps:,.0f}"


def short_count(steps: float) -> str:
    """Steps by three digits that count: 1,100, 34.0k, 1.07M."""
    if steps >= 1e6:
        return f"{number(steps / 1e6)}M"
    return f"{number(steps / 1e3)}k" if steps >= 1e4 else counted(steps)


def p_value(value: float) -> str:
    """Two digits that count."""
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"
