"""One film of a game of the same seed by every arm of a study, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.evaluate.side_by_side import film_runs
from agents.study.page.films import middle_run, with_strip
from agents.study.results import StudyResults
from envs.errors import UserError, describe_error
from rlcnn.report import Film, file_names
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json, write_json_atomic
from rlcnn.runs.progress import print_line

FILMS = "films"
"""Directory of these films in a study's, with a file beside each that says what it shows."""

MOST_GAMES = 3
"""Games of a study that are filmed, the first ones."""

MOST_STEPS = 1_500
"""Agent steps of a film; in Atari games about a minute and a half."""


def film_side_by_side(results: StudyResults, console: Console) -> None:
    """Films the middle run of each arm, unless there is a film of these runs.

    A film that fails costs a line: checkpoints may be gone, for example.
    """
    for game in results.games[:MOST_GAMES]:
        shown = _shown(results, game)
        about = _about(results, game)
        if len(shown["runs"]) < 2 or _is_of(about, shown):
            continue
        paths = [results.path / run for run in shown["runs"]]
        try:
            if not all(RunDirectory.open(path).checkpoints() for path in paths):
                raise UserError("a run has no checkpoint")
            (film,) = film_runs(
                list(map(str, paths)),
                about.with_suffix(""),
                seed=shown["seed"],
                max_steps=min(MOST_STEPS, results.plan.base.total_steps),
                device="auto",
                names=shown["arms"],
                console=console,
            )
            address = film.path.relative_to(results.path).as_posix()
            made = {**shown, "film": address, "returns": dict(film.returns)}
            write_json_atomic(about, made)
        except Exception as error:
            # The report must not be lost by a film.
            reason = str(error) if isinstance(error, UserError) else describe_error(error)
            print_line(console, f"{game}: no film of the arms side by side: {reason}")


def side_by_side_films(results: StudyResults) -> Iterator[Film]:
    """The films that were made, for the page."""
    for game in results.games[:MOST_GAMES]:
        about = _about(results, game)
        if not about.exists():
            continue
        made = read_json(about)
        film = results.path / made["film"]
        if not film.exists():
            continue
        points = ", ".join(f"{arm} {points:g}" for arm, points in made["returns"].items())
        caption = (
            f"The middle run of each arm by score, in the same game (seed {made['seed']}), at most"
            f" {min(MOST_STEPS, results.plan.base.total_steps):,} steps. Points: {points}. A game"
            " that is over stays, faded. One game shows how an arm plays, not which is better."
        )
        strip, caption = with_strip(film, caption)
        yield Film(game, "", caption, strip, film, made["film"])


def _shown(results: StudyResults, game: str) -> dict[str, Any]:
    """What a film of a game is to show: the arms with a finished run, and these runs."""
    found = {
        arm: run
        for arm in results.plan.arm_names
        if (run := middle_run(results.runs_of(game, arm))) is not None
    }
    runs = [run.directory for run in found.values()]
    return {"arms": list(found), "runs": runs, "seed": results.plan.seeds[0]}


def _is_of(about: Path, shown: dict[str, Any]) -> bool:
    if not about.exists():
        return False
    made = read_json(about)
    there = about.parent.parent / str(made.get("film"))
    return there.exists() and {name: made.get(name) for name in shown} == shown


def _about(results: StudyResults, game: str) -> Path:
    return results.path / FILMS / f"{file_names(results.games)[game]}.json"
