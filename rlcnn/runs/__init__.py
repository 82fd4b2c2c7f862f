"""A run on disk: its directory, files, checkpoints' manifests, attempts, and tracking."""

from rlcnn.runs.directory import RunDirectory, RunInUseError, RunTakenError

__all__ = ["RunDirectory", "RunInUseError", "RunTakenError"]
