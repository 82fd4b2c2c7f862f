"""Human and random scores of 57 Atari games, and scores normalised by them.

The figures are DeepMind's, as given in dqn_zoo (Quan and Ostrovski 2020), ``atari_data.py``: mean
returns of whole games that begin with up to 30 no-ops, of a human tester and of an agent that acts
at random (Mnih et al. 2015; van Hasselt et al. 2016 for later games).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from envs.errors import UserError, nearest
from rlcnn.stats.checks import FloatArray


class Reference(NamedTuple):
    """Mean returns in one game."""

    random: float
    human: float


ATARI57: Mapping[str, Reference] = {
    "alien": Reference(227.8, 7127.7),
    "amidar": Reference(5.8, 1719.5),
    "assault": Reference(222.4, 742.0),
    "asterix": Reference(210.0, 8503.3),
    "asteroids": Reference(719.1, 47388.7),
    "atlantis": Reference(12850.0, 29028.1),
    "bank_heist": Reference(14.2, 753.1),
    "battle_zone": Reference(2360.0, 37187.5),
    "beam_rider": Reference(363.9, 16926.5),
    "berzerk": Reference(123.7, 2630.4),
    "bowling": Reference(23.1, 160.7),
    "boxing": Reference(0.1, 12.1),
    "breakout": Reference(1.7, 30.5),
    "centipede": Reference(2090.9, 12017.0),
    "chopper_command": Reference(811.0, 7387.8),
    "crazy_climber": Reference(10780.5, 35829.4),
    "defender": Reference(2874.5, 18688.9),
    "demon_attack": Reference(152.1, 1971.0),
    "double_dunk": Reference(-18.6, -16.4),
    "enduro": Reference(0.0, 860.5),
    "fishing_derby": Reference(-91.7, -38.7),
    "freeway": Reference(0.0, 29.6),
    "frostbite": Reference(65.2, 4334.7),
    "gopher": Reference(257.6, 2412.5),
    "gravitar": Reference(173.0, 3351.4),
    "hero": Reference(1027.0, 30826.4),
    "ice_hockey": Reference(-11.2, 0.9),
    "jamesbond": Reference(29.0, 302.8),
    "kangaroo": Reference(52.0, 3035.0),
    "krull": Reference(1598.0, 2665.5),
    "kung_fu_master": Reference(258.5, 22736.3),
    "montezuma_revenge": Reference(0.0, 4753.3),
    "ms_pacman": Reference(307.3, 6951.6),
    "name_this_game": Reference(2292.3, 8049.0),
    "phoenix": Reference(761.4, 7242.6),
    "pitfall": Reference(-229.4, 6463.7),
    "pong": Reference(-20.7, 14.6),
    "private_eye": Reference(24.9, 69571.3),
    "qbert": Reference(163.9, 13455.0),
    "riverraid": Reference(1338.5, 17118.0),
    "road_runner": Reference(11.5, 7845.0),
    "robotank": Reference(2.2, 11.9),
    "seaquest": Reference(68.4, 42054.7),
    "skiing": Reference(-17098.1, -4336.9),
    "solaris": Reference(1236.3, 12326.7),
    "space_invaders": Reference(148.0, 1668.7),
    "star_gunner": Reference(664.0, 10250.0),
    "surround": Reference(-10.0, 6.5),
    "tennis": Reference(-23.8, -8.3),
    "time_pilot": Reference(3568.0, 5229.2),
    "tutankham": Reference(11.4, 167.6),
    "up_n_down": Reference(533.4, 11693.2),
    "venture": Reference(0.0, 1187.5),
    "video_pinball": Reference(16256.9, 17667.9),
    "wizard_of_wor": Reference(563.5, 4756.5),
    "yars_revenge": Reference(3092.9, 54576.9),
    "zaxxon": Reference(32.5, 9173.3),
}
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
        """Statistics of the unclipped returns of at least two whole episodes of each game.

        Raises:
            UserError: fewer than two returns, or one that is not finite.
        """
        means, deviations, episodes = {}, {}, {}
        for game, values in returns.items():
            array = np.asarray(values, dtype=float).ravel()
            if len(array) < 2:
                raise UserError(
                    f'the random agent has {len(array)} returns in "{game}": expected at least 2'
                )
            if not np.isfinite(array).all():
                raise UserError(f'the random agent\'s returns in "{game}" are not all finite')
            means[game] = float(array.mean())
            deviations[game] = float(array.std(ddof=1))
            episodes[game] = len(array)
        return cls(means, deviations, episodes)

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

    Mnih et al. 2015, extended data table 2 (there as per cent).

    Args:
        scores: mean returns, (..., games).
        games: names of the last axis, as :func:`find_game` takes them.
        random_agent: its means replace the table's random scores. This is needed unless agents
            were evaluated from 30 no-op starts without sticky actions.

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
