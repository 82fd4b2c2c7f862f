"""What callbacks of stable-baselines3 see during a training."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback


class Recorder(BaseCallback):
    """Records what happened, at which step, after how many updates and in which mode.

    With ``logged``, also which metrics were recorded by then. stable-baselines3 logs no norms.
    """

    def __init__(self, logged: bool = False) -> None:
        super().__init__()
        self.events: list[tuple[Any, ...]] = []
        self._logged = logged

    def note(self, event: str, *more: Any) -> None:
        counts = (self.model.num_timesteps, self.num_timesteps, self.model._n_updates)
        names = sorted(set(self.logger.name_to_value) - {"train/grad_norm", "train/param_norm"})
        if self._logged:
            more = (names, *more)
        self.events.append((event, *counts, self.model.policy.training, *more))

    def _on_training_start(self) -> None:
        self.note("training starts", self.locals["total_timesteps"])

    def _on_rollout_start(self) -> None:
        self.note("rollout starts")

    def _on_step(self) -> bool:
        shapes = [np.shape(self.locals[name]) for name in ("new_obs", "rewards", "dones")]
        self.note("step", *shapes, len(self.locals["infos"]))
        return True

    def _on_rollout_end(self) -> None:
        self.note("rollout ends")

    def _on_training_end(self) -> None:
        self.note("training ends")
