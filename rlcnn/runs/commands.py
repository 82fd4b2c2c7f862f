"""Commands to copy, for what can be done with a run."""

from __future__ import annotations

import sys
from pathlib import Path

from envs.errors import in_shell
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracking.tracker import TRACKIO_NAME

Facts = list[tuple[str, str]]
"""Labels, each with a text."""


def commands_for_curves(run: RunDirectory, project: str) -> Facts:
    """The commands that show or upload the curves of a run, tracked in ``project``."""
    facts = [("TensorBoard", f"tensorboard --logdir {in_shell(run.tb_dir)}")]
    if offline := sorted(run.path.glob("wandb/offline-run-*")):
        facts.append(("sync", f"wandb sync {' '.join(map(in_shell, offline))}"))
    if (run.path / TRACKIO_NAME).exists():
        facts.append(("dashboard", f"trackio show --project {in_shell(project)}"))
    return facts


def commands_for_study(study: Path, project: str) -> Facts:
    """The same for all runs of a study and its report, with patterns that a shell expands."""
    place = in_shell(study)
    facts = [("TensorBoard", f"tensorboard --logdir {place}/runs")]
    patterns = ("runs/*/wandb/offline-run-*", "wandb/offline-run-*")
    if offline := [pattern for pattern in patterns if any(study.glob(pattern))]:
        facts.append(("sync", " ".join(["wandb sync", *(f"{place}/{each}" for each in offline)])))
    if any(study.glob(f"runs/*/{TRACKIO_NAME}")):
        facts.append(("dashboard", f"trackio show --project {in_shell(project)}"))
    return facts


def script(name: str) -> str:
    """The beginning of a command for one of the scripts, as this process was started."""
    beside = Path(sys.argv[0]).with_name(name)
    return f"python {in_shell(beside if beside.exists() else Path('scripts') / name)}"
