"""How games are played for their frames, and what is asked about these, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from envs.checks import ObservationColour, check_observation
from envs.errors import UserError
from rlcnn.config.fields import FrameStack, ObsSize, ProtocolName, check_options

LabelKind = Literal["ram", "action", "reward", "order", "game"]
RandomPlay = Literal["random", "sticky-random"]

_BelowOne = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True)
class FrameOptions:
    """How games are played for their frames, and what is asked about these."""

    train_frames: Annotated[int, Interval(ge=100)] = 100_000
    """Different observations of each game to learn from."""
    test_frames: Annotated[int, Interval(ge=100)] = 10_000
    """Different observations of each game that are held out, from games of their own."""
    play: RandomPlay = "sticky-random"
    """How games are played: random draws every action anew from the game's own few;
    sticky-random often asks for the last one again, and so gets further."""
    repeat_probability: _BelowOne = 0.75
    """For sticky-random: how often, as a probability at each step."""
    labels: tuple[LabelKind, ...] = ("ram", "action", "reward", "game")
    """What is asked: ram, a task for each known state variable; action, the one between the two
    newest frames; reward, the sign of that step's; game, which of several it is; order, whether
    the frames are in theirs. The last shuffles half of the observations, of which then nothing
    else is asked but the game."""
    protocol: ProtocolName = "classic"
    """Rules of play, classic or sticky; a lost life does not end a game."""
    obs: ObservationColour = "grey"
    """Colours of the frames."""
    obs_size: ObsSize = 84
    """Height and width of the frames in pixels."""
    frame_stack: FrameStack = 4
    """Frames in one observation."""
    max_episode_steps: Annotated[int, Interval(ge=1)] = 4_500
    """Agent steps after which a game is left: 4,500 are five minutes of play."""
    max_classes: Annotated[int, Interval(ge=2)] = 32
    """Classes of a state variable; one with more values is cut into so many bins."""
    min_entropy: _BelowOne = 0.1
    """Tasks whose training labels have a lower normalised entropy are left out: 0.1 is that of a
    yes or no of which one is as rare as 1.3%."""

    @property
    def frame_channels(self) -> int:
        """Channels of one frame."""
        return 3 if self.obs == "rgb" else 1

    def check(self) -> None:
        """Refuses values that are not valid.

        Raises:
            UserError: one of them is not; the line names it and what was expected.
        """
        check_options(self, "frames")
        if not self.labels or len(set(self.labels)) < len(self.labels):
            given = " ".join(self.labels) or "of none"
            raise UserError(f"--frames.labels {given} must be at least one, and each once")
        check_observation(self.obs, self.obs_size, self.frame_stack)
        for label in ("action", "order"):
            if label in self.labels and self.frame_stack < 2:
                raise UserError(
                    f"--frames.labels {label} needs observations of at least 2 frames, and"
                    f" --frames.frame-stack is {self.frame_stack}"
                )
