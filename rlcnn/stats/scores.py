"""Human and random scores of 57 Atari games, and scores normalised by them.

The figures are DeepMind's, as given in dqn_zoo (Quan and Ostrovski 2020), ``atari_data.py``: mean
returns of whole games that begin with up to 30 no-ops, of a human tester and of an agent that acts
at random (Mnih et al. 2015; van Hasselt et al. 2016 for later games).
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from envs.errors import UserError, nearest
from rlcnn.stats.checks import FloatArray


class Reference(NamedTuple):
    """Mean returns in one game."""

    random: float
    human: float


def _read_references() -> dict[str, Reference]:
    lines = resources.files("rlcnn.stats").joinpath("atari57.csv").read_text().splitlines()
    return {game: Reference(float(low), float(high)) for game, low, high in csv.reader(lines[1:])}


ATARI57: Mapping[str, Reference] = _read_references()
"""Reference scores by the ROM's name, such as ``ms_pacman``."""


@dataclass(frozen=True)
class RandomAgent:
    """Returns of acting at random under a given protocol, by the games' given names.

    Sticky actions, full action spaces and starts other than up to 30 no-ops change them, so a study
    may need another zero than the table's random scores. ``deviations`` are sample standard
    deviations of the returns of single episodes. All methods raise :class:`UserError` for a game
    that was not measured.
    """

    means: Mapping[str, float]
    deviations: Mapping[str, float]
    episodes: Mapping[str, int]

    @classmethod
    def from_returns(cls, returns: Mapping[str, ArrayLike]) -> Self:
        """Statistics of unclipped, finite returns, of at least two whole episodes of each game."""
        arrays = {game: np.asarray(values, float).ravel() for game, values in returns.items()}
        for game, array in arrays.items():
            if len(array) < 2:
                raise UserError(
                    f'the random agent has {len(array)} returns in "{game}": expected at least 2'
                )
            if not np.isfinite(array).all():
                raise UserError(f'the random agent\'s returns in "{game}" are not all finite')
        return cls(
            {game: float(array.mean()) for game, array in arrays.items()},
            {game: float(array.std(ddof=1)) for game, array in arrays.items()},
            {game: len(array) for game, array in arrays.items()},
        )

    def mean(self, game: str) -> float:
        """Mean return in a game."""
        return self.means[self._measured(game)]

    def deviation(self, game: str) -> float:
        """Sample standard deviation in a game."""
        return self.deviations[self._measured(game)]

    def error(self, game: str) -> float:
        """Standard error of the mean return."""
        name = self._measured(game)
        return self.deviations[name] / math.sqrt(self.episodes[name])

    def limit(self, game: str, episodes: int, z: float = 3.0) -> float:
        """A mean return over ``episodes`` games that acting at random hardly ever reaches.

        It is ``z`` standard errors above the mean; the error includes the evaluation's games and
        the random agent's own.

        Raises:
            UserError: ``episodes`` is less than 1.
        """
        if episodes < 1:
            raise UserError(f"an evaluation of {episodes} games has no mean: expected at least 1")
        name = self._measured(game)
        error = math.sqrt(1 / episodes + 1 / self.episodes[name])
        return self.means[name] + z * self.deviations[name] * error

    def _measured(self, game: str) -> str:
        if (found := _same_game(game, self.means)) is None:
            raise UserError(
                f'the random agent was not measured in "{game}": expected one of'
                f" {', '.join(self.means)}.{nearest(game, self.means, key=_key)}"
            )
        return found


def find_game(name: str) -> str:
    """The table's name of a game, such as ``ms_pacman`` for ``ALE/MsPacman-v5``.

    Raises:
        UserError: the table lacks it; the line names the nearest game.
    """
    if (found := _same_game(name, ATARI57)) is None:
        raise UserError(
            f'no human and random scores are known of game "{name}": expected one of Atari\'s 57,'
            f' such as "ALE/Pong-v5".{nearest(name, ATARI57, key=_key)}'
        )
    return found


def _same_game(name: str, known: Mapping[str, object]) -> str | None:
    return name if name in known else {_key(each): each for each in known}.get(_key(name))


def human_normalise(
    scores: ArrayLike, games: Sequence[str], random_agent: RandomAgent | None = None
) -> FloatArray:
    """0 is acting at random and 1 the human tester: (score - random) / (human - random).

    Mnih et al. 2015, extended data table 2 (there as per cent). Scores are mean returns,
    (..., games). The means of ``random_agent`` replace the table's random scores; this is needed
    unless agents were evaluated from 30 no-op starts without sticky actions.

    Raises:
        UserError: an unknown game, a wrong number of games, or a human score that is not above
            the random agent's.
    """
    array = _per_game(scores, games)
    table = [ATARI57[find_game(game)] for game in games]
    zero = np.array([each.random for each in table])
    one = np.array([each.human for each in table])
    if random_agent:
        zero = np.array([random_agent.mean(game) for game in games])
    for game, low, high in zip(games, zero, one, strict=True):
        if not high > low:
            raise UserError(
                f'the random agent scores {low:g} in "{game}", no less than the human\'s {high:g}:'
                " scores cannot be normalised"
            )
    return (array - zero) / (one - zero)


def random_normalise(
    scores: ArrayLike, games: Sequence[str], random_agent: RandomAgent
) -> FloatArray:
    """Score minus the random agent's mean, in standard deviations of its games.

    For games without a human score. The usual ratio to the random score has no meaning: that score
    is 0 in some games and negative in others. ``scores`` are (..., games).

    Raises:
        UserError: a game was not measured, or all its returns are equal.
    """
    array = _per_game(scores, games)
    for game in games:
        if random_agent.deviation(game) == 0:
            raise UserError(
                f'all of the random agent\'s games of "{game}" returned'
                f" {random_agent.mean(game):g}: scores cannot be normalised by their deviation"
            )
    means = np.array([random_agent.mean(game) for game in games])
    return (array - means) / np.array([random_agent.deviation(game) for game in games])


def _per_game(scores: ArrayLike, games: Sequence[str]) -> FloatArray:
    array = np.asarray(scores, dtype=float)
    width = array.shape[-1] if array.ndim else 0
    if width != len(games):
        raise UserError(f"scores of {width} games were given with {len(games)} names")
    return array


def _key(name: str) -> str:
    """The part of a name that identifies a game: ``mspacman`` for ``ALE/MsPacman-v5``.

    Any other id keeps its version: ``Pong-v0`` may not be Atari's.
    """
    return re.sub(r"^ale/(.*)-v\d+$|[^a-z0-9]", r"\1", name.lower())
