"""From the results of a study to the content of its report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.config import TrainConfig
from agents.study.curves import study_curves, transfer_rows, transfer_threshold
from agents.study.page.films import study_films
from agents.study.page.paths import without_paths
from agents.study.page.side_by_side import side_by_side_films
from agents.study.plan import StudyPlan
from agents.study.pretraining import Pretraining, pretraining_of
from agents.study.results import StudyResults
from agents.study.scores import human_score, study_scores, verdicts
from envs.errors import UserError
from rlcnn.report import ArmFacts, Levels, Report, compare
from rlcnn.report.plain_words import clearest_first

BOOTSTRAP_SAMPLES = 2_000


def study_report(results: StudyResults, *, reps: int = BOOTSTRAP_SAMPLES) -> Report:
    """The content of a study's page, finished or not.

    ``reps`` are the bootstrap samples of each descriptive interval.
    """
    plan, games = results.plan, results.games
    # Of each arm with given weights, from its first run that records one.
    pretraining: dict[str, Pretraining] = {}
    for run in results.runs:
        if run.arm not in pretraining and (found := pretraining_of(results.path / run.directory)):
            pretraining[run.arm] = found
    curves = study_curves(results)
    report = Report(
        title=f"{', '.join(games)}: {len(plan.arms)} arms, {len(plan.seeds)} seeds,"
        f" {' and '.join(map(str.upper, plan.algorithms))}, {plan.base.total_steps:,} agent steps",
        games=tuple(games),
        arms=tuple(_arms(plan, pretraining)),
        control=plan.control,
        runs=tuple(replace(run, reason=without_paths(run.reason)) for run in results.runs),
        curves=curves.curves,
        curves_of=curves.source,
        levels={
            game: Levels(
                results.random_agent.means.get(game),
                # Another mode is another game than the human's.
                None if plan.base.environment.is_changed else human_score(env_id),
            )
            for env_id, game in zip(plan.games, games, strict=True)
        },
        films=(*side_by_side_films(results), *study_films(results)),
        facts={**facts_of(plan.base, results.document, plan.seeds), "algorithm": _algorithms(plan)},
        command=command_of(results.document),
    )
    try:
        scores = study_scores(results)
    except UserError as error:
        return replace(report, no_verdict=without_paths(str(error)))
    report = replace(report, notes=scores.notes)
    try:
        judged = verdicts(results, scores)
    except UserError as error:
        return replace(report, no_verdict=str(error))
    threshold = transfer_threshold(scores, plan.control)
    notes = [
        f"The curves are those above, from {curves.source}.",
        "Wall time is assumed to pass evenly over the steps of a run; it depends on the other"
        " work of the machine.",
    ]
    if any(run.state == "failed" for run in results.runs):
        notes.append("A run that failed counts as acting at random from there on.")
    notes += [f"{arm}: {note}." for arm, each in pretraining.items() for note in each.notes]
    return replace(
        report,
        verdicts=tuple(clearest_first(judged)),
        unit=scores.scale.unit,
        comparison=compare(scores.scores, plan.control, human=scores.scale.human, reps=reps),
        transfer=tuple(transfer_rows(results, curves.curves, scores.scale, threshold, pretraining)),
        threshold=threshold,
        transfer_notes=tuple(map(without_paths, notes)),
    )


def _algorithms(plan: StudyPlan) -> str:
    """Algorithm, preset and precision of the arms, each combination once."""
    return "; ".join(dict.fromkeys(map(learning_of, plan.trainings)))


def learning_of(config: TrainConfig) -> str:
    """Algorithm, preset and precision of a training, for people."""
    return f"{config.algo.upper()}, preset {config.preset}, precision {config.precision}"


def _arms(plan: StudyPlan, pretraining: Mapping[str, Pretraining]) -> list[ArmFacts]:
    arms = []
    every = zip(plan.arm_names, plan.full_names, plan.arms, plan.trainings, strict=True)
    for name, full, arm, config in every:
        before = pretraining.get(name)
        options = ", ".join(f"{name} {value}" for name, value in config.encoder_options.items())
        encoder = f"{config.encoder} ({options})" if options else config.encoder
        given = "" if config.weights == "none" else f'"{config.weights}"'
        origin, cost = (before.origin, str(before)) if before else (given, "")
        learns = _mode(config)
        if arm.options:
            learns += f"; {config.algo.upper()}, preset {config.preset}"
        origin, cost, full = map(without_paths, (origin, cost, full))
        arms.append(ArmFacts(name, encoder, learns, origin, cost, full))
    return arms


def _mode(config: TrainConfig) -> str:
    if config.mode != "finetune":
        return "trained" if config.mode == "train" else config.mode
    mode = f"fine-tuned at {config.finetune_factor:g} of the learning rate"
    if config.head_factor != 1:
        mode += f", the layer behind it at {config.head_factor:g}"
    mode += f", from {config.unfreeze_from} on" if config.unfreeze_from else ""
    return mode + (f", from step {config.unfreeze_at_step:,} on" if config.unfreeze_at_step else "")


def command_of(document: Mapping[str, Any]) -> str:
    """The command that began a study, as typed in the directory of the code, wherever that was."""
    command = list(document.get("command") or ())
    if command and command[0].endswith(".py"):
        command[:1] = ["python", str(Path(*Path(command[0]).parts[-2:]))]
    return without_paths(shlex.join(command))


def facts_of(
    base: TrainConfig, document: Mapping[str, Any], seeds: Sequence[int] = ()
) -> dict[str, str]:
    """Versions, machine and options of a study, by name."""
    made = document.get("provenance") or {}
    commit = made.get("git_commit")
    facts = {
        "begun": document.get("began"),
        "algorithm": learning_of(base),
        "seeds": ", ".join(map(str, seeds)),
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
