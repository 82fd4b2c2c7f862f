"""The films on the page of a study: a run of each arm, failed and dead runs, all arms together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from agents.study.results import StudyResults
from envs.errors import UserError
from envs.films.filmstrip import film_strip
from rlcnn.report import Film, RunResult
from rlcnn.report.style import number, plural


def study_films(results: StudyResults) -> Iterator[Film]:
    """The last film of a failed or dead run of each arm and game, then of the middle runs."""
    for game, arm in product(results.games, results.plan.arm_names):
        filmed = filmed_runs(results, game, arm)
        random = results.random_agent.means.get(game)
        for run, film in filmed:
            if run.state == "failed" or run.is_dead(random):
                what = "a run that failed" if run.state == "failed" else "a run that scored nothing"
                yield _film(results.path, run, film, what, first=True)
                break
    for game, arm in product(results.games, results.plan.arm_names):
        filmed = filmed_runs(results, game, arm)
        if (middle := middle_run([run for run, _ in filmed])) is not None:
            scored = sum(run.score is not None for run, _ in filmed)
            place = (
                f"the middle one of {scored} finished runs by score"
                if scored > 1
                else "the only finished run"
            )
            film = next(film for run, film in filmed if run is middle)
            yield _film(results.path, middle, film, place)
        elif filmed:
            # No run is done: the furthest one.
            yield _film(results.path, *max(filmed, key=lambda pair: int(pair[1].stem)), "")


def filmed_runs(results: StudyResults, game: str, arm: str) -> list[tuple[RunResult, Path]]:
    """The runs of an arm in a game that have a film, each with its last one."""
    filmed = []
    for run in results.runs_of(game, arm):
        films = sorted((results.path / run.directory / "videos").glob("[0-9]*.mp4"))
        filmed += [(run, film) for film in films[-1:]]
    return filmed


def middle_run(runs: list[RunResult]) -> RunResult | None:
    """The finished run with the middle score; of two in the middle, the lower one."""
    scored = [(run.score, run.seed, run) for run in runs if run.score is not None]
    return sorted(scored)[(len(scored) - 1) // 2][2] if scored else None


def _film(path: Path, run: RunResult, film: Path, what: str, first: bool = False) -> Film:
    caption = f"Seed {run.seed} after {int(film.stem):,} steps"
    if what:
        caption += f", {what}"
    if run.score is not None:
        caption += f" (mean return {number(run.score)} over {plural(run.episodes or 0, 'game')})"
    strip, caption = with_strip(film, f"{caption}. One whole game.")
    address = film.relative_to(path).as_posix()
    return Film(run.game, run.arm, caption, strip, film, address, first)


def with_strip(film: Path, caption: str) -> tuple[bytes, str]:
    """The strip of a film and its caption; without a strip, why the film cannot be read."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return film_strip(film, Path(scratch) / "strip.png").read_bytes(), caption
    except UserError as error:
        return b"", str(error)
