"""Films during a training; a film that fails never ends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from agents.config import TrainConfig
from agents.evaluate.evaluation import film_agent
from agents.registry import Agent
from envs.errors import UserError, describe_error
from envs.films.camera import FilmResult, why_not_rendered
from rlcnn.runs.progress import print_line
from rlcnn.runs.stopping import TrainingStopped


class Filming:
    """Films games of a run; prints one line where it films observations instead, or fails.

    Attributes:
        note: why films show observations, or may fail; None where the environment can render.
    """

    def __init__(self, config: TrainConfig, console: Console) -> None:
        """Tries the camera with one picture."""
        self._config, self._console = config, console
        self._no_render: str | None = None
        self.note: str | None = None
        try:
            self._no_render = why_not_rendered(config.environment, config.seed)
        except Exception as error:
            self.note = f"films may fail: {_reason(error)}"
        if self._no_render:
            self.note = f"films show what the agent observes: {self._no_render}"

    def film(
        self, model: Agent, path: Path, step: int, on_step: Callable[[], None]
    ) -> FilmResult | None:
        """Films one game to ``path``; see :func:`agents.evaluate.film_agent`.

        The result is None where the film failed, which costs one line. ``on_step`` may raise
        TrainingStopped.
        """
        try:
            film = film_agent(
                model,
                self._config,
                path,
                step=step,
                overlay=self._config.video_overlay,
                on_step=on_step,
            )
        except TrainingStopped:
            raise
        except Exception as error:
            # A film that fails must not lose the training and its evaluation.
            print_line(self._console, f"not filmed: {_reason(error)}")
            return None
        if film.no_render and film.no_render != self._no_render:
            self._no_render = film.no_render
            print_line(self._console, f"the film shows what the agent observes: {film.no_render}")
        return film


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else describe_error(error)
