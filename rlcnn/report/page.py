"""The page of a study: one HTML file with all its content, without scripts or network access."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rlcnn.report import style
from rlcnn.report.content import Film, Report
from rlcnn.report.style import NOTHING, Drawing, arm_styles
from rlcnn.stats import Verdict, coverage_range, load_calibration
from rlcnn.stats.calibration import OURS, PERCENTILE, WELCH, Cell

Films = Literal["linked", "embedded", "strips"]
"""How the page shows films: strips of pictures with a link to each film, strips with the films
themselves if they are small enough, or strips alone."""

LARGEST_FILM = 3_000_000
"""Bytes of the largest film that a page embeds."""

_MOST_MISSING = 6

# What a page says of one arm, and of several.
_FINDINGS = {
    "better": ("{} is better", "{} are better"),
    "suggestively better": ("{} may be better", "{} may be better"),
    "worse": ("{} is worse", "{} are worse"),
    "suggestively worse": ("{} may be worse", "{} may be worse"),
    "inconclusive": ("for {} it is not settled", "for {} it is not settled"),
}


def render(report: Report, drawings: Mapping[str, Drawing], films: Films = "linked") -> str:
    """Fills the templates with a report.

    Args:
        report: what to show.
        drawings: the figures by name, from :func:`rlcnn.report.plots.draw`.
        films: how the page shows films.

    Returns:
        A whole HTML document. The same arguments give the same text.
    """
    counts = [len(report.runs_of(game, arm)) for game in report.games for arm in report.arm_names]
    return (
        _templates()
        .get_template("page.html")
        .render(
            report=report,
            drawings=drawings,
            styles=arm_styles(report.arm_names, report.control),
            states=Counter(run.state for run in report.runs),
            unfinished=[run for run in report.runs if run.state in ("begun", "waiting")],
            missing=_missing(report),
            common_notes=_common_notes(report.verdicts),
            linked=films != "strips",
            embedded=partial(_embedded, films=films),
            calibration=load_calibration(),
            cells=calibration_cells(min(counts, default=0), len(report.games)),
            methods=(OURS, WELCH, PERCENTILE),
        )
    )


def lead(verdicts: Sequence[Verdict]) -> str:
    """What a study found of all its arms, in one sentence."""
    if any(verdict.finding == "no arm learned" for verdict in verdicts):
        return "No arm learned, so nothing can be said of one against another."
    parts = []
    for finding, (one, several) in _FINDINGS.items():
        arms = [verdict.treatment for verdict in verdicts if verdict.finding == finding]
        if arms:
            listed = " and ".join(filter(None, [", ".join(arms[:-1]), arms[-1]]))
            parts.append((several if len(arms) > 1 else one).format(listed))
    return f"Against {verdicts[0].control}: {'; '.join(parts)}."


def breakable(text: str) -> Markup:
    """Escaped text in which long names of arms and files may break.

    They break after a separator, and within a part that is longer than a phone's column.
    """
    places = r"([:@/,])(?=[^\s\d])|([^\s:@/,-]{20})(?=[^\s:@/,-])"
    return Markup(escape(re.sub(places, "\\1\\2\0", text)).replace("\0", Markup("<wbr>")))


def calibration_cells(runs: int, games: int) -> Sequence[Cell]:
    """The simulated studies of the largest size that is no larger than the study's."""
    cells = [cell for cell in load_calibration().cells if cell.runs <= runs and cell.games <= games]
    largest = max(((cell.games, cell.runs) for cell in cells), default=None)
    return [cell for cell in cells if (cell.games, cell.runs) == largest]


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("rlcnn.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    written = {
        name: getattr(style, name)
        for name in (
            *("counted", "duration", "interval", "number", "p_value", "percent", "signed"),
            *("plural", "signed_count", "signed_duration"),
        )
    }
    environment.globals |= written
    environment.globals |= {
        "breakable": breakable,
        "coverage_range": coverage_range,
        "data_uri": _data_uri,
        "known": _known,
        "lead": lead,
    }
    environment.filters |= {"percent": style.percent, "sentence": _sentence}
    return environment


def _missing(report: Report) -> list[str]:
    missing = [
        f"{run.name}: " + ("not begun" if run.state == "waiting" else f"{run.steps:,} steps taken")
        for run in report.runs
        if run.state in ("begun", "waiting")
    ]
    if len(missing) > _MOST_MISSING:
        missing[_MOST_MISSING:] = [f"and {len(missing) - _MOST_MISSING} more, see Runs"]
    return missing


def _common_notes(verdicts: Sequence[Verdict]) -> list[str]:
    """Notes that all of several verdicts have: the page gives them once."""
    if len(verdicts) < 2:
        return []
    return [n for n in verdicts[0].notes if all(n in verdict.notes for verdict in verdicts)]


def _embedded(film: Film, films: Films) -> str:
    """A film as a data URI; empty if the page does not embed it."""
    if film.path is None or films != "embedded" or film.path.stat().st_size > LARGEST_FILM:
        return ""
    return _data_uri(film.path.read_bytes(), "video/mp4")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _known(value: Any, written: Any = str) -> str:
    return NOTHING if value is None else written(value)


def _sentence(text: str) -> str:
    """A note as a sentence."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")
