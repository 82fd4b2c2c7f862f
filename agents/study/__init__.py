"""Studies: plan games x arms x seeds, train each combination, compare the arms and report."""

from agents.study.arms import Arm, parse_arm
from agents.study.plan import StudyPlan, StudyRun, parse_games
from agents.study.report import study_report
from agents.study.results import StudyResults
from agents.study.runner import default_study_dir, read_plan, run_study

__all__ = [
    "Arm",
    "StudyPlan",
    "StudyResults",
    "StudyRun",
    "default_study_dir",
    "parse_arm",
    "parse_games",
    "read_plan",
    "run_study",
    "study_report",
]
