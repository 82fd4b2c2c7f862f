"""Results of runs -> scores of arms, without losing a run."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from envs.errors import UserError
from rlcnn.stats.checks import FloatArray


class Result(NamedTuple):
    """The score of a run at its end; None, NaN or infinite if it failed or diverged."""

    arm: str
    game: str
    seed: int
    score: float | None


@dataclass(frozen=True)
class ScoreTable:
    """Scores in the form that :mod:`rlcnn.stats` takes, arm -> (runs, games).

    ``games`` are those of the columns, ``seeds`` those of each arm's rows, and ``notes`` are limits
    of the scores, one line each. ``failed`` counts an arm's runs without a score of their own.
    """

    games: tuple[str, ...]
    seeds: Mapping[str, tuple[int, ...]]
    scores: Mapping[str, FloatArray]
    notes: tuple[str, ...]
    failed: Mapping[str, int]


def tabulate(results: Iterable[Result], failed_as: Mapping[str, float] | None = None) -> ScoreTable:
    """Arranges results, including those of failed runs, by arm, seed and game.

    ``failed_as`` is the score of a failed run in each game, such as the random agent's; a note
    names each such run. Without it, a failed run is an error.

    Raises:
        UserError: no results, a run twice, a missing game or seed of an arm, or a run without a
            finite score.
    """
    rows: dict[str, dict[tuple[str, int], float]] = {}
    games: dict[str, None] = {}
    notes = []
    failed: Counter[str] = Counter()
    for arm, game, seed, score in results:
        games[game] = None
        runs = rows.setdefault(arm, {})
        if (game, seed) in runs:
            raise UserError(f'arm "{arm}" has two scores of seed {seed} in "{game}": expected one')
        if score is None or not math.isfinite(score):
            problem = "no score" if score is None else f"the score {score}"
            if failed_as is None or game not in failed_as:
                raise UserError(
                    f'arm "{arm}" has {problem} of seed {seed} in "{game}": run it again, or say'
                    " what a failed run counts as"
                )
            score = failed_as[game]
            failed[arm] += 1
            notes.append(
                f'arm "{arm}", seed {seed} in "{game}" failed and counts with a score of {score:g}'
            )
        runs[game, seed] = float(score)
    if not rows:
        raise UserError("there are no results: expected at least one run")
    seeds = {}
    for arm, runs in rows.items():
        if absent := [game for game in games if game not in {game for game, _ in runs}]:
            raise UserError(
                f'arm "{arm}" has no run in "{absent[0]}", where others have: expected runs in all'
                f" of {', '.join(games)}"
            )
        seeds[arm] = tuple(sorted({seed for _, seed in runs}))
        for game, seed in itertools.product(games, seeds[arm]):
            if (game, seed) not in runs:
                raise UserError(
                    f'arm "{arm}" has no run of seed {seed} in "{game}", but in other games:'
                    " expected the same seeds in all"
                )
    counts = {arm: len(runs) for arm, runs in seeds.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{arm} {count}" for arm, count in counts.items())
        notes.append(f"arms have different numbers of runs: {listed}")
    return ScoreTable(
        games=tuple(games),
        seeds=seeds,
        scores={
            arm: np.array([[runs[game, seed] for game in games] for seed in seeds[arm]])
            for arm, runs in rows.items()
        },
        notes=tuple(notes),
        failed={arm: failed[arm] for arm in rows},
    )
