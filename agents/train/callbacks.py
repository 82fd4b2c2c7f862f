"""Actions beside learning: evaluations, films, checkpoints, stops, logging, and progress.

All of them use stable-baselines3's ``on_rollout_start``, which fires between two updates, when the
counters equal what was learned.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from rlcnn.runs.compact import score_text
from rlcnn.runs.progress import Task


class BetweenUpdates(BaseCallback):
    """Calls ``action`` before the first update and between every two."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self._action = action

    def _on_rollout_start(self) -> None:
        self._action()

    def _on_step(self) -> bool:
        return True


class Every(BaseCallback):
    """Calls ``action`` between updates, once in every ``steps`` agent steps; 0 makes no calls.

    The calls depend on the step counter alone, so a resumed run makes those of a run that was
    never interrupted. ``pending`` adds one at the step where training starts, such as a call that a
    stop prevented.
    """

    def __init__(self, steps: int, action: Callable[[], object], pending: bool = False) -> None:
        super().__init__()
        self._steps, self._action, self._pending_at_start = steps, action, pending
        self._next: float = float("inf")

    @property
    def pending(self) -> bool:
        """Whether the action is due at this step and was not completed yet."""
        # An environment that fails at its first reset ends a training before there is a model here.
        return self._next != float("inf") and self.model.num_timesteps >= self._next

    def _on_training_start(self) -> None:
        self._schedule()
        if self._pending_at_start:
            self._next = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.pending:
            self._action()
            self._pending_at_start = False
            self._schedule()

    def _on_step(self) -> bool:
        return True

    def _schedule(self) -> None:
        step, steps = self.model.num_timesteps, self._steps
        self._next = (step // steps + 1) * steps if steps else float("inf")


class UpdateLog(BaseCallback):
    """Logs the metrics of each PPO update under the step that it learned up to.

    stable-baselines3 logs them with the next rollout, one update late, and never the last ones.
    Where updates overlap with rollouts, PPO itself logs each update so.
    """

    def _on_rollout_start(self) -> None:
        self._dump()

    def _on_training_end(self) -> None:
        self._dump()

    def _on_step(self) -> bool:
        return True

    def _dump(self) -> None:
        if self.logger.name_to_value:
            self.logger.dump(self.model.num_timesteps)


class ShowProgress(BaseCallback):
    """Shows steps, what goes on, and the mean return of the last games, as a task."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._task = task

    def _on_training_start(self) -> None:
        self._redraw()

    def _on_rollout_start(self) -> None:
        self._begin_phase("")

    def _on_rollout_end(self) -> None:
        self._begin_phase("update")

    def _begin_phase(self, name: str) -> None:
        # DQN learns nothing before.
        filling = self.model.num_timesteps < getattr(self.model, "learning_starts", 0)
        self._task.begin_phase("filling the replay" if filling else name)

    def _on_step(self) -> bool:
        if self._task.reach(self.num_timesteps):
            self._task.status = self._mean_return()
        return True

    def _on_training_end(self) -> None:
        self._task.begin_phase("")
        self._redraw()

    def _redraw(self) -> None:
        self._task.done, self._task.status = self.model.num_timesteps, self._mean_return()

    def _mean_return(self) -> str:
        games = self.model.ep_info_buffer
        return f"return {score_text(np.mean([g['r'] for g in games]))}" if games else "return -"
