"""What stands at the top of a study's page: its verdict, or what it still lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rlcnn.report.content import Report
from rlcnn.report.markup import Markup, breakable, bullets, element, escape, join, paragraph
from rlcnn.stats import Verdict

_SIDES = {
    "better": "better",
    "suggestively better": "better",
    "worse": "worse",
    "suggestively worse": "worse",
}

# What is said of one arm, and of several.
_FINDINGS = {
    "better": ("{} is better", "{} are better"),
    "suggestively better": ("{} may be better", "{} may be better"),
    "worse": ("{} is worse", "{} are worse"),
    "suggestively worse": ("{} may be worse", "{} may be worse"),
    "inconclusive": ("of {} it is not settled", "of {} it is not settled"),
}

_MOST_MISSING = 6


def head(report: Report) -> Markup:
    """Title, how many runs are done, and the verdict in a sentence, then in figures."""
    states = Counter(run.state for run in report.runs)
    unfinished = states["begun"] + states["waiting"]
    told = [f"{states['done']} of {len(report.runs)} runs done"]
    told += [f"{states['failed']} failed"] * bool(states["failed"])
    told += [f"{unfinished} not finished"] * bool(unfinished)
    said = _verdicts(report) if report.verdicts else _no_verdict(report, unfinished)
    return join(
        [element("h1", escape(report.title)), paragraph(", ".join(told), "faint"), said],
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


def _verdicts(report: Report) -> Markup:
    several = len(report.verdicts) > 1
    # What is said of all arms alike is said once.
    counts = Counter(note for verdict in report.verdicts for note in set(verdict.notes))
    common = [
        note
        for note in report.verdicts[0].notes
        if several and counts[note] == len(report.verdicts)
    ]
    notes = [_sentence(note) for note in dict.fromkeys([*report.notes, *common])]
    return join(
        [
            element("p", breakable(lead(report.verdicts)), class_="lead")
            if several
            else Markup(""),
            *(_verdict(verdict, common) for verdict in report.verdicts),
            bullets(notes),
        ]
    )


def _verdict(verdict: Verdict, common: Sequence[str]) -> Markup:
    own = [_sentence(note) for note in verdict.notes if note not in common]
    side = _SIDES.get(verdict.finding, "")
    inner = join([element("p", breakable(verdict.sentence)), bullets(own)])
    return element("div", inner, class_=f"verdict {side}".rstrip())


def _no_verdict(report: Report, unfinished: int) -> Markup:
    missing = [
        f"{run.game}, {run.arm}, seed {run.seed}: "
        + ("not begun" if run.state == "waiting" else f"{run.steps:,} steps taken")
        for run in report.runs
        if run.state in ("begun", "waiting")
    ]
    if len(missing) > _MOST_MISSING:
        missing[_MOST_MISSING:] = [f"and {len(missing) - _MOST_MISSING} more, see Runs"]
    finding = "No verdict yet" if unfinished else "No verdict"
    why = paragraph(_sentence(report.no_verdict)) if report.no_verdict else Markup("")
    inner = [element("p", escape(finding), class_="lead"), why, bullets(missing)]
    return element("div", join(inner), class_="verdict")


def _sentence(text: str) -> str:
    """A note as a sentence."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")
