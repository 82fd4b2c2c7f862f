"""How a report writes numbers and styles figures: one colour per arm, legible on a phone."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A typographic minus: a hyphen is easily missed.
_MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


def number(value: float) -> str:
    """Three significant digits, at most two decimals: 0.62, 17.7, 1,204."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else "∞" if value > 0 else f"{_MINUS}∞"
    size = abs(value)
    decimals = 2 if size < 10 else 1 if size < 100 else 0
    text = f"{size:,.{decimals}f}"
    return f"{_MINUS}{text}" if value < 0 and float(text.replace(",", "")) else text


def signed(value: float, written: Callable[[float], str] = number) -> str:
    """``value``, written without a sign, and its sign; none if it is written as zero."""
    text = written(abs(value)) if math.isfinite(value) else number(abs(value))
    if not any(digit in "123456789∞" for digit in text):
        return text
    return f"{'+' if value > 0 else _MINUS}{text}"


def interval(low: float, high: float, written: Callable[[float], str] = number) -> str:
    """``[low, high]``."""
    return f"[{written(low)}, {written(high)}]"


def percent(share: float) -> str:
    """A share in per cent, with at most one decimal."""
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
    """Steps by three significant digits: 1,100, 34.0k, 1.07M."""
    if steps >= 1e6:
        return f"{number(steps / 1e6)}M"
    return f"{number(steps / 1e3)}k" if steps >= 1e4 else counted(steps)


def p_value(value: float) -> str:
    """Two significant digits."""
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"


def plural(count: int, noun: str) -> str:
    """``1 game``, ``3 games``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def signed_duration(seconds: float) -> str:
    """:func:`duration` with its sign: ``+12 min``."""
    return signed(seconds, duration)


def signed_count(steps: float) -> str:
    """:func:`short_count` with its sign: ``+34.0k``."""
    return signed(steps, short_count)


# -- figures ---------------------------------------------------------------------------------------

# Okabe and Ito 2008, "Color universal design", without yellow, which is invisible on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D")
_CONTROL = "#333333"
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# As in figures.mplstyle.
INK, FAINT = "#1a1a1a", "#6b6b6b"

# What the colours of figures become on a dark page; the paper as in page.css.
_DARK = {
    **{"#ffffff": "#1e2125", INK: "#e8e6e3", FAINT: "#a7a7a3", _CONTROL: "#d2d0cc"},
    **{"#e3e3e3": "#363a40", "#0072b2": "#3f9fe0", "#d55e00": "#f2884b", "#009e73": "#2fc79b"},
    **{"#cc79a7": "#e09cc3", "#e69f00": "#f3b83f", "#56b4e9": "#a3dbff", "#7f3c8d": "#be86cc"},
}


def in_the_dark(colour: str) -> str:
    """A colour of figures, as a dark page shows it."""
    return _DARK.get(colour.lower(), colour)


def _dark_rules() -> bytes:
    """A style for SVG that replaces the colours of figures on a dark screen."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in _DARK.items()
        for what in ("fill", "stroke")
    )
    return f"<style>@media screen and (prefers-color-scheme:dark){{{rules}}}</style>".encode()


# Inches: a little less than a phone's screen, which enlarges the figure.
WIDTH = 4.4


class ArmStyle(NamedTuple):
    """Colour, line and marker of an arm; no two arms share all three."""

    colour: str
    line: str
    marker: str


@dataclass(frozen=True)
class Drawing:
    """A finished figure: the name of its files, a title, and the content of both files.

    ``alt`` is its content as text, for readers who cannot see it.
    """

    name: str
    title: str
    alt: str
    svg: bytes
    png: bytes


def arm_styles(arms: Sequence[str], control: str) -> dict[str, ArmStyle]:
    """A style for each arm: dark grey for the control, colours for the others.

    The colours differ without red-green vision; with more arms than colours, lines and markers
    differ too.
    """
    others = [arm for arm in arms if arm != control]
    given = {control: ArmStyle(_CONTROL, "-", "o")}
    for number, arm in enumerate(others):
        lap, place = divmod(number, len(_COLOURS))
        marker = _MARKERS[(number + 1) % len(_MARKERS)]
        given[arm] = ArmStyle(_COLOURS[place], _LINES[lap % len(_LINES)], marker)
    return {arm: given[arm] for arm in arms}


def point_style(number: int) -> tuple[str, str]:
    """The colour and the marker of the points of a class; the first 49 numbers share no pair."""
    lap, place = divmod(number, len(_COLOURS))
    return _COLOURS[place], _MARKERS[(place + lap) % len(_MARKERS)]


def elided(name: str, most: int) -> str:
    """``name``, without its middle if it is longer than ``most`` characters."""
    if len(name) <= most:
        return name
    head = (most - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


@contextmanager
def styled() -> Iterator[None]:
    """Applies the settings of reports to figures drawn and saved within it."""
    # Slow to import, and only reports need it.
    from matplotlib import style

    with style.context("rlcnn.report.figures"):
        yield


def new_figure(height: float) -> Figure:
    """An empty figure of the common width, ``height`` inches high."""
    # pyplot keeps every figure and may need a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def finish(figure: Figure, name: str, title: str, alt: str) -> Drawing:
    """The figure as SVG and PNG; the same figure gives the same bytes."""
    # One layout for both formats: it takes as long as drawing, and keeps them equal.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    files = []
    for kind in ("svg", "png"):
        content = io.BytesIO()
        # A date would make every report different.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(content, format=kind, dpi=200, facecolor="white", metadata=metadata)
        files.append(content.getvalue())
    # Wherever the SVG is shown, it follows the reader's colours.
    files[0] = files[0].replace(b"</svg>", _dark_rules() + b"</svg>")
    return Drawing(name, title, alt, *files)
