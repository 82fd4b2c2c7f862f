"""From the results of a study to what its report shows."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.config import TrainConfig
from agents.study.curves import StudyCurves, study_curves, transfer_rows, transfer_threshold
from agents.study.plan import StudyPlan
from agents.study.pretraining import Pretraining, pretraining_of
from agents.study.scores import (
    StudyScores,
    control_arm,
    human_score,
    study_scores,
    verdicts,
)
from envs.errors import UserError
from envs.films.filmstrip import film_strip
from envs.registry import game_name
from rlcnn.report import ArmFacts, Film, Levels, Report, RunResult, compare
from rlcnn.report.formatting import number
from rlcnn.stats import RandomAgent, Verdict

BOOTSTRAP_SAMPLES = 2_000

_FATES = {"train": "learned", "frozen": "left as it is"}


def study_report(
    path: Path,
    plan: StudyPlan,
    runs: Sequence[RunResult],
    random_agent: RandomAgent,
    document: Mapping[str, Any],
    *,
    reps: int = BOOTSTRAP_SAMPLES,
) -> Report:
    """Everything that the page of a study shows, finished or not.

    Args:
        path: the study's directory.
        plan: what was compared.
        runs: every run.
        random_agent: measured in all games.
        document: what ``study.json`` says.
        reps: bootstrap samples of each interval that describes.
    """
    games = tuple(game_name(game) for game in plan.games)
    control = control_arm(plan)
    pretraining = _pretraining(path, runs)
    curves = study_curves(path, runs, random_agent.means)
    told: list[Verdict] = []
    scores: StudyScores | None = None
    no_verdict = ""
    try:
        scores = study_scores(plan, runs, random_agent)
        told = verdicts(plan, scores)
    except UserError as error:
        no_verdict = str(error)
    shown: dict[str, Any] = {}
    if scores is not None and told:
        shown = _compared(scores, control, curves, plan, runs, pretraining, reps)
    return Report(
        title=_title(plan, games),
        games=games,
        arms=tuple(_arms(plan, pretraining)),
        control=control,
        runs=tuple(runs),
        verdicts=tuple(told),
        no_verdict=no_verdict,
        notes=scores.notes if scores else (),
        curves=curves.curves,
        curves_of=curves.told,
        levels={
            game: Levels(random_agent.means.get(game), human_score(env_id))
            for env_id, game in zip(plan.games, games, strict=True)
        },
        films=tuple(_films(path, runs, games, plan.arm_names)),
        facts=_facts(plan, document),
        command=_command(document.get("command") or ()),
        **shown,
    )


def _compared(
    scores: StudyScores,
    control: str,
    curves: StudyCurves,
    plan: StudyPlan,
    runs: Sequence[RunResult],
    pretraining: Mapping[str, Pretraining],
    reps: int,
) -> dict[str, Any]:
    """What there is of a study only when all its runs have ended."""
    scale = scores.scale
    threshold = transfer_threshold(scale, scores.scores[control])
    others = [arm for arm in plan.arm_names if arm != control]
    rows = transfer_rows(curves.curves, runs, scale, others, control, threshold, pretraining)
    notes = [
        f"Curves are those above, of {curves.told}.",
        "Wall time is taken to be spread evenly over a run's steps; it hangs on what else the"
        " machine did.",
    ]
    notes += ["A run that failed counts as acting at random from there on."] * any(
        run.state == "failed" for run in runs
    )
    notes += [f"{arm}: {note}." for arm, each in pretraining.items() for note in each.notes]
    return {
        "unit": scale.unit,
        "comparison": compare(scores.scores, control, human=scale.human, reps=reps),
        "transfer": tuple(rows),
        "threshold": threshold,
        "transfer_notes": tuple(notes),
    }


def _command(arguments: Sequence[str]) -> str:
    """As a shell takes it where the code lies; in which directory that was helps nobody."""
    if arguments and arguments[0].endswith(".py"):
        script = Path(*Path(arguments[0]).parts[-2:])
        return shlex.join(["python", str(script), *arguments[1:]])
    return shlex.join(arguments)


def _title(plan: StudyPlan, games: Sequence[str]) -> str:
    return (
        f"{', '.join(games)}: {len(plan.arms)} arms, {len(plan.seeds)} seeds,"
        f" {plan.base.algo.upper()}, {plan.base.total_steps:,} agent steps"
    )


def _arms(plan: StudyPlan, pretraining: Mapping[str, Pretraining]) -> list[ArmFacts]:
    arms = []
    for name, arm in zip(plan.arm_names, plan.arms, strict=True):
        config = arm.configure(plan.base)
        before = pretraining.get(name)
        given = "" if config.weights == "none" else f'"{config.weights}"'
        arms.append(
            ArmFacts(
                name,
                _encoder(config),
                _fate(config),
                before.origin if before else given,
                str(before) if before else "",
            )
        )
    return arms


def _encoder(config: TrainConfig) -> str:
    options = ", ".join(f"{name} {value}" for name, value in config.encoder_options.items())
    return f"{config.encoder} ({options})" if options else config.encoder


def _fate(config: TrainConfig) -> str:
    if config.mode in _FATES:
        return _FATES[config.mode]
    fate = f"fine-tuned at {config.finetune_factor:g} of the rate"
    fate += f", from {config.unfreeze_from} on" if config.unfreeze_from else ""
    return fate + (f", from step {config.unfreeze_at_step:,} on" if config.unfreeze_at_step else "")


def _pretraining(path: Path, runs: Sequence[RunResult]) -> dict[str, Pretraining]:
    """Of each arm that was given weights, by the first of its runs that tells."""
    found: dict[str, Pretraining] = {}
    for run in runs:
        if run.arm not in found and (before := pretraining_of(path / run.directory)):
            found[run.arm] = before
    return found


def _films(
    path: Path, runs: Sequence[RunResult], games: Sequence[str], arms: Sequence[str]
) -> list[Film]:
    films = []
    for game in games:
        for arm in arms:
            mine = [run for run in runs if (run.game, run.arm) == (game, arm)]
            filmed = [(run, _films_of(path / run.directory)) for run in mine]
            filmed = [(run, found) for run, found in filmed if found]
            if filmed:
                judged = sum(run.score is not None for run, _ in filmed)
                films.append(_film(path, *_chosen(filmed), judged))
    return films


def _films_of(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "videos").glob("[0-9]*.mp4"))


def _chosen(filmed: list[tuple[RunResult, list[Path]]]) -> tuple[RunResult, Path]:
    """The run in the middle by its score, and its last film; where none is done, the furthest."""
    done = [pair for pair in filmed if pair[0].score is not None]
    if done:
        done.sort(key=lambda pair: (pair[0].score, pair[0].seed))
        run, films = done[(len(done) - 1) // 2]
    else:
        run, films = max(filmed, key=lambda pair: int(pair[1][-1].stem))
    return run, films[-1]


def _film(path: Path, run: RunResult, film: Path, judged: int) -> Film:
    """``judged``: of how many runs it is the middle one."""
    caption = f"Seed {run.seed} after {int(film.stem):,} steps"
    if run.score is not None:
        place = (
            f"the middle one of {judged} finished runs by score"
            if judged > 1
            else "the only finished run"
        )
        caption += f", {place} (mean return {number(run.score)} over {run.episodes} games)"
    caption += ". One whole game."
    strip = b""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            strip = film_strip(film, Path(scratch) / "strip.png").read_bytes()
    except UserError as error:
        caption = str(error)
    return Film(run.game, run.arm, caption, strip, film, film.relative_to(path).as_posix())


def _facts(plan: StudyPlan, document: Mapping[str, Any]) -> dict[str, str]:
    made = document.get("provenance") or {}
    base = plan.base
    commit = made.get("git_commit")
    facts = {
        "begun": document.get("began"),
        "algorithm": f"{base.algo.upper()}, preset {base.preset}, precision {base.precision}",
        "seeds": ", ".join(map(str, plan.seeds)),
        "evaluation": f"{base.eval_episodes} whole games, protocol {base.protocol}",
        "versions": ", ".join(
            f"{name} {version}" for name, version in (made.get("versions") or {}).items() if version
        ),
        "source": commit and f"{commit}{' with changes' if made.get('git_dirty') else ''}",
        "machine": made.get("platform"),
        "processor": made.get("cpu"),
        "cores": made.get("cores"),
        "GPUs": ", ".join(made.get("gpus") or ()),
    }
    return {name: str(value) for name, value in facts.items() if value}
