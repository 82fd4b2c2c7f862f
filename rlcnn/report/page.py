"""The page of a study: one HTML file with all its content, without scripts or network access."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rlcnn.report import style
from rlcnn.report.content import Film, Report
from rlcnn.report.glossary import Glossary, word_id
from rlcnn.report.options import Films
from rlcnn.report.plain_words import plain_words
from rlcnn.report.style import NOTHING, Drawing, arm_styles, in_the_dark
from rlcnn.stats import Verdict, coverage_range, load_calibration
from rlcnn.stats.calibration import OURS, PERCENTILE, WELCH
from rlcnn.stats.verdict import quoted

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
    """Fills the templates with a report and its figures by name: a whole HTML document.

    The same arguments give the same text.
    """
    template = templates().get_template("page.html")
    counts = [len(report.runs_of(game, arm)) for game in report.games for arm in report.arm_names]
    runs, games = min(counts, default=0), len(report.games)
    cells = [cell for cell in load_calibration().cells if cell.runs <= runs and cell.games <= games]
    # The simulated studies of the largest size that is no larger than the study's.
    largest = max(((cell.games, cell.runs) for cell in cells), default=None)
    # Notes that all of several verdicts have: the page gives them once.
    notes, *others = [verdict.notes for verdict in report.verdicts] or [()]
    common_notes = [note for note in notes if others and all(note in other for other in others)]
    unfinished = [run for run in report.runs if run.state in ("begun", "waiting")]
    missing = [
        f"{run.name}: " + ("not begun" if run.state == "waiting" else f"{run.steps:,} steps taken")
        for run in unfinished
    ]
    if len(missing) > _MOST_MISSING:
        missing[_MOST_MISSING:] = [f"and {len(missing) - _MOST_MISSING} more, see Runs"]

    def embedded(film: Film) -> str:
        """A film as a data URI; empty if the page does not embed it."""
        if film.path is None or films != "embedded" or film.path.stat().st_size > LARGEST_FILM:
            return ""
        return data_uri(film.path.read_bytes(), "video/mp4")

    return template.render(
        report=report,
        plain=plain_words(report),
        glossary=Glossary(),
        drawings=drawings,
        styles=arm_styles(report.arm_names, report.control),
        states=Counter(run.state for run in report.runs),
        unfinished=unfinished,
        missing=missing,
        common_notes=common_notes,
        linked=films != "strips",
        embedded=embedded,
        calibration=load_calibration(),
        cells=[cell for cell in cells if (cell.games, cell.runs) == largest],
        methods=(OURS, WELCH, PERCENTILE),
    )


def lead(verdicts: Sequence[Verdict]) -> str:
    """What a study found of all its arms, in one sentence."""
    if any(verdict.finding == "no arm learned" for verdict in verdicts):
        return "No arm learned, so nothing can be said of one against another."
    parts = []
    for finding, (one, several) in _FINDINGS.items():
        arms = [quoted(verdict.treatment) for verdict in verdicts if verdict.finding == finding]
        if arms:
            listed = " and ".join(filter(None, [", ".join(arms[:-1]), arms[-1]]))
            parts.append((several if len(arms) > 1 else one).format(listed))
    return f"Against {quoted(verdicts[0].control)}: {'; '.join(parts)}."


def breakable(text: str) -> Markup:
    """Escaped text in which long names of arms and files may break.

    They break after a separator, and within a part that is longer than a phone's column.
    """
    places = r"([:@/,])(?=[^\s\d])|([^\s:@/,-]{20})(?=[^\s:@/,-])"
    return Markup(escape(re.sub(places, "\\1\\2\0", text)).replace("\0", Markup("<wbr>")))


@cache
def templates() -> Environment:
    """The templates of pages, with what they write numbers and texts by."""
    environment = Environment(
        loader=PackageLoader("rlcnn.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # A figure that is not known.
        finalize=lambda value: NOTHING if value is None else value,
    )
    names = "counted duration interval number p_value percent plural signed signed_count"
    written = [*names.split(), "signed_duration"]
    environment.globals |= {name: getattr(style, name) for name in written}
    own = (breakable, coverage_range, data_uri, in_the_dark, lead, word_id)
    environment.globals |= {function.__name__: function for function in own}
    environment.filters |= {"percent": style.percent, "sentence": sentence}
    return environment


def data_uri(content: bytes, kind: str) -> str:
    """A file as part of the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sentence(note: str) -> str:
    """A note as a sentence."""
    return f"{note[:1].upper()}{note[1:]}" + ("" if note.endswith((".", "!", "?")) else ".")
