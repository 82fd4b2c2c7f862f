"""The page of a study: one file that holds all it shows, without scripts and without a network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Literal

from rlcnn.report.content import Film, Report
from rlcnn.report.formatting import number, percent
from rlcnn.report.head import head
from rlcnn.report.markup import (
    Markup,
    breakable,
    bullets,
    data_uri,
    element,
    escape,
    image,
    join,
    paragraph,
)
from rlcnn.report.plots import file_names
from rlcnn.report.style import Drawing, Look, looks
from rlcnn.report.tables import (
    aggregates_table,
    arms_table,
    calibration_cells,
    calibration_table,
    differences_table,
    facts_table,
    runs_table,
    transfer_table,
    verdicts_table,
)
from rlcnn.stats import coverage_range, load_calibration

Films = Literal["linked", "embedded", "strips"]
"""How films are in the page: as strips of pictures with a link to each film, with the films
themselves where they are small enough, or as strips alone."""

LARGEST_FILM = 3_000_000
"""Bytes of a film that is still embedded."""


def render(report: Report, drawings: Mapping[str, Drawing], films: Films = "linked") -> str:
    """The page.

    Args:
        report: what to show.
        drawings: the figures, by name, as :func:`rlcnn.report.plots.draw` makes them.
        films: how films are shown.

    Returns:
        A whole HTML document. The same arguments give the same text.
    """
    look = looks(report.arm_names, report.control)
    sections = {
        "curves": ("Learning curves", _curves(report, drawings)),
        "scores": ("Scores", _scores(report, drawings)),
        "comparison": ("Comparison", _comparison(report, drawings, look)),
        "transfer": ("Transfer", _transfer(report, look)),
        "films": ("Films", _films(report, films)),
        "arms": ("Arms", arms_table(report, look)),
        "runs": ("Runs", runs_table(report, look)),
        "intervals": ("How far the intervals can be trusted", _calibration(report)),
        "repeat": ("To repeat it", _repeat(report)),
    }
    shown = {name: parts for name, parts in sections.items() if parts[1]}
    links = join(element("a", escape(title), href=f"#{name}") for name, (title, _) in shown.items())
    body = join(
        [
            element("header", head(report)),
            element("nav", links, aria_label="sections"),
            *(
                element("section", join([element("h2", escape(title)), content]), id=name)
                for name, (title, content) in shown.items()
            ),
        ]
    )
    style = resources.files("rlcnn.report").joinpath("page.css").read_text()
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # A browser asks the server for an icon where a page has none.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(report.title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


# -- figures ---------------------------------------------------------------------------------------


def _figure(drawing: Drawing) -> Markup:
    return element("figure", image(drawing.svg, "image/svg+xml", drawing.alt))


def _figures(drawings: Mapping[str, Drawing], wanted: str) -> Markup:
    found = [drawing for name, drawing in drawings.items() if name.startswith(wanted)]
    if not found:
        return Markup("")
    return element("div", join(_figure(drawing) for drawing in found), class_="figures")


def _curves(report: Report, drawings: Mapping[str, Drawing]) -> Markup:
    figures = _figures(drawings, "curve-")
    if not figures:
        return Markup("")
    failed = any(run.state == "failed" for run in report.runs)
    told = (
        f"Returns in {report.curves_of}. Thick lines: the mean over the runs that have ended, with"
        " its 95% t interval at each step alone. Thin lines: single runs."
    )
    if failed:
        told += " A cross: here a run failed; from there on it counts as acting at random."
    return join([paragraph(told, "faint"), figures])


def _scores(report: Report, drawings: Mapping[str, Drawing]) -> Markup:
    figures = _figures(drawings, "scores-")
    if not figures:
        return Markup("")
    told = "Each dot is a run: the mean return of its last agent. The bar marks the mean of these"
    if any(run.state == "failed" for run in report.runs):
        told += " and of the crosses, runs that failed and count with the random agent's return"
    told += "."
    return join([paragraph(told, "faint"), figures])


def _comparison(
    report: Report, drawings: Mapping[str, Drawing], look: Mapping[str, Look]
) -> Markup:
    if not report.verdicts:
        return Markup("")
    confidence = report.verdicts[0].difference.confidence
    parts = [
        element("h3", escape(f"Difference to {report.control}")),
        paragraph(
            f"In {report.unit}, with the {100 * confidence:.4g}% interval that the verdict follows"
            " from.",
            "faint",
        ),
        _figures(drawings, "difference"),
        verdicts_table(report, look),
    ]
    if report.comparison is not None:
        one = len(report.games) == 1
        parts += [
            element("h3", escape("Aggregates")),
            paragraph(
                "Stratified percentile bootstrap intervals (95%), as rliable draws them. They"
                " describe, and are too narrow to judge by."
                + (" Of one game, median and mean are the same." if one else ""),
                "faint",
            ),
            _figures(drawings, "aggregate-"),
            aggregates_table(report, look),
            paragraph(f"The same less {report.control}'s, by the same bootstrap:", "faint"),
            differences_table(report, look),
            element("h3", escape("Run against run")),
            paragraph("Bars and shades are such intervals, at each value alone.", "faint"),
            element(
                "div",
                join(
                    _figure(drawings[name])
                    for name in ("improvement", "profile", "profile-difference")
                    if name in drawings
                ),
                class_="figures",
            ),
        ]
    return join(parts)


def _transfer(report: Report, look: Mapping[str, Look]) -> Markup:
    if not report.transfer:
        return Markup("")
    threshold = "" if report.threshold is None else f" The threshold is {number(report.threshold)}."
    told = (
        f"Taylor and Stone's metrics (2009) against {report.control}, in {report.unit}, with 95%"
        f" intervals of the difference, each alone.{threshold} Runs that do not reach it within the"
        " budget are censored there: the time saved is that of the restricted means, and the share"
        " that reached it stands beside it. There is no transfer ratio where the control's mean is"
        " not clearly above acting at random."
    )
    return join(
        [
            paragraph(told, "faint"),
            transfer_table(report, look),
            bullets(report.transfer_notes),
        ]
    )


def _films(report: Report, films: Films) -> Markup:
    shown = join(_film(film, films) for film in report.films)
    return element("div", shown, class_="films") if shown else shown


def _film(film: Film, films: Films) -> Markup:
    name = f"{film.game}, {film.arm}"
    # Weights & Biases shows the film itself under the caption, so this holds for the strip alone.
    caption = f"{film.caption} Left to right." if film.strip else film.caption
    parts = [element("figcaption", join([element("strong", breakable(name)), escape(caption)]))]
    if film.strip:
        alt = f"Pictures of a game of {film.game} as {film.arm} plays it, left to right"
        strip = element(
            "div",
            image(film.strip, "image/png", alt),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_label=f"film strip of {name}",
        )
        parts.append(strip)
    if film.path is not None and films == "embedded" and film.path.stat().st_size <= LARGEST_FILM:
        address = data_uri(film.path.read_bytes(), "video/mp4")
        video = (
            f'<video controls preload="none" playsinline aria-label="{escape(name)}"'
            f' src="{address}"></video>'
        )
        parts.append(Markup(video))
    elif film.address and films != "strips":
        link = element("a", escape("the whole game"), href=film.address)
        parts.append(element("p", link, class_="faint"))
    return element("figure", join(parts), class_="film")


# -- runs, intervals, command ----------------------------------------------------------------------


def _calibration(report: Report) -> Markup:
    counts = [len(report.runs_of(game, arm)) for game in report.games for arm in report.arm_names]
    fewest, games = min(counts, default=0), len(report.games)
    calibration = load_calibration()
    parts = [
        paragraph(
            "Verdicts follow from a t interval of the difference of the mean scores, stratified by"
            " game, in which both arms are given the larger of their two variances and the smaller"
            f" of their numbers of runs. What such {100 * calibration.confidence:g}% intervals"
            " really cover was measured on simulated studies whose true difference is known."
        )
    ]
    for runs in dict.fromkeys(verdict.runs for verdict in report.verdicts):
        least, greatest = (percent(share) for share in coverage_range(runs, games))
        sizes = f"{runs[0]}" if runs[0] == runs[1] else f"{runs[0]} and {runs[1]}"
        parts.append(
            paragraph(
                f"With {sizes} runs an arm and {_games(games)}, as in this study, they held the"
                f" true difference in {least} to {greatest} of the studies, by how scores are"
                " distributed. Scores of other kinds can do worse."
            )
        )
    cells = calibration_cells(fewest, games)
    if not cells:
        parts.append(paragraph("The table of intervals has no study as small as this one."))
        return join(parts)
    parts += [
        paragraph(
            f"With {cells[0].runs} runs an arm and {_games(cells[0].games)}, the largest size in"
            f" the table that is no larger than this study ({calibration.studies:,} simulated"
            " studies of each kind):"
        ),
        calibration_table(cells),
    ]
    if any(min(cell.ceiling, 1.0) < calibration.confidence for cell in cells):
        parts.append(
            paragraph(
                "Where runs fail, or either stay at nothing or take off, few of them may all happen"
                " to end alike: no interval about as wide as the spread seen can then cover what it"
                " promises.",
                "faint",
            )
        )
    if len(report.verdicts) > 1:
        parts.append(
            paragraph(
                f"This study gives {len(report.verdicts)} verdicts, whose intervals are widened so"
                " that all hold at once (Bonferroni); what is measured here are single intervals.",
                "faint",
            )
        )
    return join(parts)


def _games(count: int) -> str:
    return f"{count} game{'s' * (count != 1)}"


def _repeat(report: Report) -> Markup:
    parts = []
    if report.command:
        parts.append(element("pre", element("code", escape(report.command))))
    if report.facts:
        parts.append(facts_table(report.facts))
    return join(parts)


__all__ = ["LARGEST_FILM", "Films", "file_names", "render"]
