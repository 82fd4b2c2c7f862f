"""Options of what an encoder learns in its pretraining: labels, or sequences without labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from envs.errors import UserError, nearest
from rlcnn.config.fields import Arg, Fraction

ObjectiveName = Literal["classify", "spr", "inverse", "contrastive"]
CLASSIFY: ObjectiveName = "classify"

_Steps = Annotated[int, Interval(ge=1, le=100)]


@dataclass(frozen=True)
class Objectives:
    """Objectives."""

    objectives: Annotated[tuple[str, ...], Arg(metavar="NAME [WEIGHT]")] = (CLASSIFY,)
    """What the encoder learns: classify, the images' labels; or, from sequences of atari: frames,
    spr, inverse or contrastive. Several are added, each with a weight of 1 or that given after
    its name: spr 1 inverse 0.5."""
    jumps: _Steps = 5
    """For spr: number of steps ahead that are predicted."""
    contrast_steps: _Steps = 3
    """For contrastive: steps from an observation to the one that it is to recognise."""
    target_decay: Fraction = 0.99
    """For spr and contrastive: decay of the target encoder, a moving average of the encoder's
    weights; 0 copies the encoder after each update."""

    @property
    def weights_by_objective(self) -> dict[ObjectiveName, float]:
        """Objectives by name, with their weights.

        Raises:
            UserError: a name is unknown or given twice, or a weight is not positive.
        """
        return parse_objectives(self.objectives)

    @property
    def needs_sequences(self) -> bool:
        """Whether an objective learns from sequences."""
        return self.weights_by_objective.keys() != {CLASSIFY}


def parse_objectives(texts: Sequence[str]) -> dict[ObjectiveName, float]:
    """Names, each perhaps followed by its weight, as weights by name.

    Raises:
        UserError: a name is unknown or given twice, a weight is not positive, or there is no name.
    """
    names = get_args(ObjectiveName)
    weights: dict[ObjectiveName, float] = {}
    previous = None
    for text in texts:
        weight = None
        with suppress(ValueError):
            weight = float(text)
        if weight is None:
            if text not in names:
                raise UserError(
                    f'--objectives "{text}" is unknown: expected {", ".join(names)}, each with a'
                    f" weight or without.{nearest(text, names)}"
                )
            if text in weights:
                raise UserError(f"--objectives {' '.join(texts)} must name {text} once")
            previous = next(name for name in names if name == text)
            weights[previous] = 1.0
        elif previous is None:
            raise UserError(
                f"--objectives {' '.join(texts)} must have a name before each weight, such as"
                " spr 1 inverse 1"
            )
        elif not 0 < weight < math.inf:
            raise UserError(
                f"--objectives {previous} {text} must have a weight above 0; leave {previous} out"
                " for none"
            )
        else:
            weights[previous] = weight
            previous = None
    if not weights:
        raise UserError(f"--objectives needs at least one of {', '.join(names)}")
    return weights
