"""A run on disk and the life of a training in it: files, checkpoints, tracking, stops, resumes."""

from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.lock import RunInUseError, RunTakenError

__all__ = ["RunDirectory", "RunInUseError", "RunTakenError"]
