"""Reports of studies: figures, one HTML page with all of them, and both in Weights & Biases."""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from rlcnn.report.comparison import Comparison, compare
    from rlcnn.report.content import ArmFacts, Film, Levels, Report, RunResult, State, Transfer
    from rlcnn.report.curves import MeanCurve, RunCurve, mean_curve
    from rlcnn.report.options import Films
    from rlcnn.report.page import render
    from rlcnn.report.plots import draw, file_names
    from rlcnn.report.style import Drawing
    from rlcnn.report.writing import write_report
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = [
    "ArmFacts",
    "Comparison",
    "Drawing",
    "Film",
    "Films",
    "Levels",
    "MeanCurve",
    "Report",
    "RunCurve",
    "RunResult",
    "State",
    "Transfer",
    "compare",
    "draw",
    "file_names",
    "mean_curve",
    "render",
    "write_report",
]
