"""What happens beside learning: progress shown, games judged and filmed, checkpoints cut.

All of it hangs on stable-baselines3's ``on_rollout_start``, which fires between two updates, when
the counters equal what was learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from stable_baselines3.common.callbacks import BaseCallback

from rlcnn.runs import stopping
from rlcnn.runs.progress import StepRate


class Every(BaseCallback):
    """Calls ``action`` between updates, once in every ``steps`` agent steps.

    What is due follows from the step counter alone, so a resumed run goes on as one that was never
    interrupted; but for what a stop kept from being done at the step where the run goes on.

    Args:
        steps: agent steps between two calls; 0 never calls.
        action: what to do.
        owed: whether it is still to be done at the step where training starts.
    """

    def __init__(self, steps: int, action: Callable[[], None], owed: bool = False) -> None:
        super().__init__()
        self._steps = steps
        self._action = action
        self._owed = owed
        self._next: float = float("inf")

    @property
    def due(self) -> bool:
        """Whether it is to be done now, and was not, or not to its end."""
        return self.model.num_timesteps >= self._next

    def _on_training_start(self) -> None:
        self._schedule()
        if self._owed and self._steps:
            self._next = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.due:
            self._action()
            self._owed = False
            self._schedule()

    def _on_step(self) -> bool:
        return True

    def _schedule(self) -> None:
        if self._steps:
            self._next = (self.model.num_timesteps // self._steps + 1) * self._steps


class LearnedSteps(BaseCallback):
    """Remembers the step up to which the agent has learned; a rollout under way is beyond it.

    Attributes:
        steps: that step; None before training starts.
    """

    steps: int | None = None

    def _on_rollout_start(self) -> None:
        self.steps = self.model.num_timesteps

    def _on_step(self) -> bool:
        return True


class UpdateLog(BaseCallback):
    """Logs what an update of PPO tells under the step that it learned up to, once it is done.

    stable-baselines3 logs it with the rollout that follows, one update late: the last one's never.
    Where updates overlap with rollouts, PPO itself logs each one so.
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


class StopRequest(stopping.StopRequest, BaseCallback):
    """A request to stop, answered between two updates; what takes long there asks by ``check``."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """``tell``: what to say, and how, when it is asked for."""
        BaseCallback.__init__(self)
        stopping.StopRequest.__init__(self, tell)

    def _on_rollout_start(self) -> None:
        self.check()

    def _on_step(self) -> bool:
        return True


class ProgressDisplay(BaseCallback):
    """A live bar: steps, steps per second, time left, mean return of the last games.

    Where the output is no terminal, a line is printed at most every ``line_seconds``.

    Args:
        total_steps: of the whole run.
        console: where to show it.
        line_seconds: seconds between two lines where there is no terminal.
    """

    def __init__(self, total_steps: int, console: Console, line_seconds: float = 30.0) -> None:
        super().__init__()
        self._total = total_steps
        self._console = console
        self._line_seconds = line_seconds
        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} steps/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("return {task.fields[ret]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def _on_training_start(self) -> None:
        self._began = self._shown = self._marked = time.monotonic()
        self._first = self._marked_steps = self.model.num_timesteps
        self._rate = StepRate()
        self._task = self._bar.add_task(
            "", total=self._total, completed=self._first, rate="-", ret=self._mean_return()
        )
        self._bar.start()

    def _on_step(self) -> bool:
        now = time.monotonic()
        if now - self._marked >= 1.0:
            self._rate.add(self.num_timesteps - self._marked_steps, now - self._marked)
            self._marked, self._marked_steps = now, self.num_timesteps
            self._update_bar()
            if not self._console.is_terminal and now - self._shown >= self._line_seconds:
                self._shown = now
                self._console.print(self._line(now))
        return True

    def _on_training_end(self) -> None:
        self._update_bar()
        self.close()

    def close(self) -> None:
        """Takes the bar off the screen; calling it again does nothing."""
        self._bar.stop()

    def _update_bar(self) -> None:
        self._bar.update(
            self._task,
            completed=self.model.num_timesteps,
            rate=f"{self._rate.value:,.0f}",
            ret=self._mean_return(),
        )

    def _mean_return(self) -> str:
        games = self.model.ep_info_buffer
        return f"{np.mean([game['r'] for game in games]):.1f}" if games else "-"

    def _line(self, now: float) -> str:
        done = self.num_timesteps - self._first
        rate = done / (now - self._began)
        left = (self._total - self.num_timesteps) / rate if rate else float("inf")
        return (
            f"{self.num_timesteps:,}/{self._total:,} steps, {rate:,.0f} steps/s,"
            f" {left / 60:.1f} min left, return {self._mean_return()}"
        )
