"""Numbers in few columns, for displays of any width."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.cells import cell_len


def count_text(done: int, total: int) -> str:
    """Such as ``12/30``, ``8.2k/2.00M``, ``0.52M/2.00M`` and ``0.520G/1.000G``."""
    return f"{_short(done, total)}/{_short(total, total)}"


def _short(count: int, total: int) -> str:
    for least, size, unit, digits in (
        (10**9, 10**9, "G", 3),
        (10**6, 10**6, "M", 2),
        (10**4, 10**3, "k", 1),
    ):
        # Less than a tenth of a unit is shown in a smaller one: 0.00M would say nothing.
        if total >= least and 10 * count >= size:
            return f"{count / size:.{digits}f}{unit}"
    return str(count)


def rate_text(per_second: float) -> str:
    """Such as ``12k/s``, ``110/s``, ``6.5/min`` and ``0.4/h``; ``?/s`` for 0."""
    if not per_second:
        return "?/s"
    for least, size, unit in ((1e6, 1e6, "M/s"), (1e4, 1e3, "k/s"), (1, 1, "/s")):
        if per_second >= least:
            value = per_second / size
            return f"{value:.{1 if value < 10 else 0}f}{unit}"
    if per_second >= 1 / 60:
        return f"{60 * per_second:.1f}/min"
    return f"{3600 * per_second:.1f}/h"


def duration_text(seconds: float) -> str:
    """Such as ``0:06``, ``59:59``, ``5h39m`` and ``12d03h``; ``?`` if it is not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days >= 100:
        return f"{days}d" if days < 1000 else ">999d"
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}:{seconds:02}"


def score_text(value: float) -> str:
    """A return in few columns: ``-20.3``, ``1.235e+06``."""
    return f"{value:.1f}" if abs(value) < 100_000 else f"{value:.3e}"


def wrap(parts: Iterable[str], width: int) -> list[str]:
    """Parts, two spaces apart, in as few lines of ``width`` columns as possible."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + 2 + cell_len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines
