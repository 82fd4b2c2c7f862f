"""From the results of a search to the content of its page."""

from __future__ import annotations

from agents.search.objective import NEVER, curve_key
from agents.search.outcome import SearchResults
from agents.search.space import written
from agents.study.curves import WINDOW, points, run_metrics
from agents.study.report import command_of, facts_of
from agents.train.training import EVALUATION
from rlcnn.report import ArmFacts, Report, RunCurve
from rlcnn.report.searches import Axis, SearchReport, TrialRow


def search_report(results: SearchResults) -> SearchReport:
    """The content of a search's page, finished or not."""
    plan, objective = results.plan, results.plan.objective
    axes = [Axis(each.name, each.kind != "choice", each.kind == "log") for each in plan.space]
    trials = []
    for trial in results.trials:
        if trial.state == "skipped":
            continue
        values = [trial.values.get(axis.name) for axis in axes]
        reached = trial.value is not None and trial.value < NEVER
        trials.append(
            TrialRow(
                number=trial.number,
                state=trial.state,
                value=trial.value if reached else None,
                shown=objective.written(trial.value),
                values=values,
                texts=[written(value) for value in values],
                score=trial.score,
                steps=trial.steps,
                wall_seconds=trial.wall_seconds,
                reason=trial.reason,
            )
        )
    finals = [
        (
            each.name,
            each.described(objective) + ("; the present values" if each.is_current else ""),
            results.shown(each.trial.values),
        )
        for each in results.finals
    ]
    base = plan.base
    return SearchReport(
        title=f"Search in {plan.game}: {plan.most_trials} trials, {base.algo.upper()},"
        f" {base.total_steps:,} agent steps",
        objective=objective.title,
        label=objective.label,
        lower_is_better=objective.sign < 0,
        axes=tuple(axes),
        trials=tuple(trials),
        finals=tuple(finals),
        winner="" if results.winner is None else results.shown(results.winner),
        notes=tuple(results.notes),
        importances=results.importances,
        runs=_runs(results),
    )


def _runs(results: SearchResults) -> Report:
    """The runs of the finalists as those of a study, whose arms they are."""
    plan = results.plan
    key = curve_key(plan.base)
    curves: dict[str, tuple[RunCurve, ...]] = {}
    arms = []
    for each in results.finals:
        arms.append(ArmFacts(each.name, plan.base.encoder, plan.base.mode))
        curves[each.name] = tuple(
            RunCurve(
                run.seed,
                *points(run_metrics(results.path / run.directory), key),
                ended=run.state in ("done", "failed"),
            )
            for run in each.results
        )
    facts = facts_of(plan.base, results.document)
    facts["trials"] = f"seed {plan.base.seed}, sampler {plan.effort.sampler}, pruning"
    facts["trials"] += f" {plan.effort.pruning}"
    facts["finalists"] = f"seeds {', '.join(map(str, plan.final_seeds))}"
    current = next((each.name for each in results.finals if each.is_current), "")
    return Report(
        title="",
        games=(plan.game,) if arms else (),
        arms=tuple(arms),
        control=current or (arms[0].name if arms else ""),
        runs=tuple(run for each in results.finals for run in each.results),
        curves={plan.game: curves},
        curves_of="the evaluations during training"
        if key == EVALUATION
        else f"the last {WINDOW} training games",
        facts=facts,
        command=command_of(results.document),
    )
