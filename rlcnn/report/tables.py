"""The tables of a report's page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from rlcnn.report.content import Report, RunResult, Transfer
from rlcnn.report.formatting import (
    counted,
    duration,
    interval,
    number,
    p_value,
    percent,
    short_count,
    signed,
)
from rlcnn.report.markup import Column, Markup, breakable, escape, table
from rlcnn.report.style import Look
from rlcnn.stats import Difference, TransferMetrics
from rlcnn.stats.calibration import OURS, WELCH, Cell, load_calibration

PERCENTILE = "percentile bootstrap, IQM"
"""The calibration's name of the interval that rliable's plots show."""

_NOTHING = Markup("\N{EN DASH}")


def arm_cell(name: str, look: Mapping[str, Look]) -> Markup:
    """An arm's name beside its colour."""
    swatch = f'<span class="swatch" style="--arm:{look[name].colour}" aria-hidden="true"></span>'
    return Markup(f"{swatch}{breakable(name)}")


def arms_table(report: Report, look: Mapping[str, Look]) -> Markup:
    """What each arm is, and where its weights came from."""
    columns = [
        Column("arm"),
        Column("encoder"),
        Column("which is"),
        Column("its weights came from", "long"),
        Column("and had cost", "long"),
    ]
    rows = [
        (
            [
                arm_cell(arm.name, look),
                escape(arm.encoder),
                escape(arm.fate),
                breakable(arm.origin or "initial values"),
                escape(arm.cost) if arm.cost else _NOTHING,
            ],
            "",
        )
        for arm in report.arms
    ]
    return table(columns, rows, "the arms")


def verdicts_table(report: Report, look: Mapping[str, Look]) -> Markup:
    """The figures behind each verdict."""
    columns = [
        Column("arm"),
        Column("finding"),
        Column(f"difference to {report.control}", "n"),
        Column("p, of this pair alone" if len(report.verdicts) > 1 else "p", "n"),
        Column("least possible p", "n"),
        Column("smallest difference found 4 times in 5", "n"),
    ]
    rows = [
        (
            [
                arm_cell(verdict.treatment, look),
                escape(verdict.finding),
                difference_cell(verdict.difference),
                escape(p_value(verdict.p_value)),
                escape(p_value(verdict.smallest_p)),
                escape(number(verdict.smallest_detectable)),
            ],
            "",
        )
        for verdict in report.verdicts
    ]
    return table(columns, rows, "the figures behind the verdicts")


def aggregates_table(report: Report, look: Mapping[str, Look]) -> Markup:
    """Aggregates of each arm with their bootstrap intervals."""
    assert report.comparison is not None
    aggregates, improvement = report.comparison.aggregates, report.comparison.improvement
    columns = [
        Column("arm"),
        *(Column(name, "n") for name in aggregates),
        Column(f"P(beats {report.control})", "n"),
    ]
    rows = []
    for arm in report.comparison.scores:
        estimates = [each[arm] for each in aggregates.values()]
        estimates += [improvement[arm]] if arm in improvement else []
        cells = [_with_interval(float(e.point), float(e.low), float(e.high)) for e in estimates]
        cells += [_NOTHING] * (arm not in improvement)
        rows.append(([arm_cell(arm, look), *cells], ""))
    return table(columns, rows, "aggregates of each arm")


def differences_table(report: Report, look: Mapping[str, Look]) -> Markup:
    """Each arm's aggregates less the control's, with their bootstrap intervals."""
    assert report.comparison is not None
    differences = report.comparison.differences
    columns = [Column("arm"), *(Column(name, "n") for name in differences)]
    rows = []
    for arm in report.comparison.improvement:
        estimates = [each[arm] for each in differences.values()]
        cells = [
            _with_interval(float(e.point), float(e.low), float(e.high), signed) for e in estimates
        ]
        rows.append(([arm_cell(arm, look), *cells], ""))
    return table(columns, rows, f"aggregates of each arm less those of {report.control}")


def transfer_table(report: Report, look: Mapping[str, Look]) -> Markup:
    """What each arm gained over the control, by every way of counting what was spent."""
    columns = [
        Column("spent"),
        Column("jumpstart", "n"),
        Column("asymptotic gain", "n"),
        Column("area under the curve", "n"),
        Column("transfer ratio", "n"),
        Column("reached: arm, control", "n"),
        Column("time saved to threshold", "n"),
    ]
    rows: list[tuple[list[Markup], str]] = []
    arm = ""
    for row in report.transfer:
        if row.arm != arm:
            # A heading: beside each of its rows, a long name makes them several lines high.
            arm = row.arm
            rows.append(([Markup(f"<div>{arm_cell(arm, look)}</div>")], "group"))
        rows.append(([escape(row.spent), *_transfer_cells(row)], ""))
    return table(columns, rows, "what was transferred")


def _transfer_cells(row: Transfer) -> list[Markup]:
    metrics = row.metrics
    if metrics is None:
        return [breakable(row.missing)]
    return [
        difference_cell(metrics.jumpstart) if metrics.jumpstart else _NOTHING,
        difference_cell(metrics.asymptotic),
        difference_cell(metrics.area),
        _ratio_cell(metrics),
        escape(", ".join(percent(share) for share in metrics.time.reached)),
        difference_cell(metrics.time.saved, seconds=row.unit == "seconds", spent=True),
    ]


def _ratio_cell(metrics: TransferMetrics) -> Markup:
    if metrics.transfer_ratio is None:
        return _NOTHING
    return _with_interval(*metrics.transfer_ratio, signed)


def difference_cell(
    difference: Difference, *, seconds: bool = False, spent: bool = False
) -> Markup:
    """A difference with its interval; of steps or seconds where it is of what was ``spent``."""

    def written(value: float) -> str:
        if not spent or not math.isfinite(value):
            return signed(value)
        sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
        return sign + (duration(abs(value)) if seconds else short_count(abs(value)))

    if not difference.freedom:
        return escape(f"{written(difference.point)} (no interval)")
    return _with_interval(difference.point, difference.low, difference.high, written)


def _with_interval(
    point: float, low: float, high: float, written: Callable[[float], str] = number
) -> Markup:
    """A figure and its interval, between which alone a line may end."""
    reach = f"<span>{escape(interval(low, high, written))}</span>"
    return Markup(f'<span class="pair">{escape(written(point))} {reach}</span>')


def runs_table(report: Report, look: Mapping[str, Look]) -> Markup:
    """Every run, whatever became of it."""
    columns = [
        Column("game"),
        Column("arm"),
        Column("seed", "n"),
        Column("state"),
        Column("score (deviation over games)", "n"),
        Column("games", "n"),
        Column("steps", "n"),
        Column("wall time", "n"),
        Column("steps/s", "n"),
    ]
    # A column that is empty in most studies.
    reasons = any(run.reason for run in report.runs)
    columns += [Column("reason", "long")] * reasons
    rows = [
        (
            [*_run_cells(run, look), *[escape(run.reason)] * reasons],
            "failed" if run.state == "failed" else "",
        )
        for game in report.games
        for arm in report.arm_names
        for run in report.runs_of(game, arm)
    ]
    return table(columns, rows, "every run")


def _run_cells(run: RunResult, look: Mapping[str, Look]) -> list[Markup]:
    score = _NOTHING
    if run.score is not None:
        spread = "" if run.std is None else f" ({number(run.std)})"
        score = escape(f"{number(run.score)}{spread}")
    rate = run.steps_per_second
    return [
        escape(run.game),
        arm_cell(run.arm, look),
        escape(run.seed),
        escape(_STATES.get(run.state, run.state)),
        score,
        _NOTHING if run.episodes is None else escape(run.episodes),
        escape(counted(run.steps)),
        _NOTHING if run.wall_seconds is None else escape(duration(run.wall_seconds)),
        _NOTHING if rate is None else escape(f"{rate:,.0f}"),
    ]


_STATES = {"begun": "not finished", "waiting": "not begun"}


def calibration_cells(runs: int, games: int) -> Sequence[Cell]:
    """Of the sizes that were simulated, the largest that is no larger than the study."""
    cells = [cell for cell in load_calibration().cells if cell.runs <= runs and cell.games <= games]
    largest = max(((cell.games, cell.runs) for cell in cells), default=None)
    return [cell for cell in cells if (cell.games, cell.runs) == largest]


def calibration_table(cells: Sequence[Cell]) -> Markup:
    """What nominal 95% intervals really cover in studies of one size."""
    columns = [
        Column("scores are distributed"),
        Column("this report's interval", "n"),
        Column("Welch's", "n"),
        Column("percentile bootstrap of the IQM", "n"),
    ]
    rows = [
        (
            [
                escape(cell.scenario),
                *(escape(percent(cell.coverage[name])) for name in (OURS, WELCH, PERCENTILE)),
            ],
            "",
        )
        for cell in cells
    ]
    return table(columns, rows, "what intervals really cover")


def facts_table(facts: Mapping[str, str]) -> Markup:
    """Names and values."""
    columns = [Column("what"), Column("value", "long")]
    rows = [([escape(name), escape(value)], "") for name, value in facts.items()]
    return table(columns, rows, "what the study was made with")
