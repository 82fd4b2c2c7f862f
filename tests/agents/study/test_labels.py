"""Labels of arms: short by themselves, or given, and what they leave as it was."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from support.study_files import make_plan, write_study
from support.study_pages import page_of, text_of, well

from agents.study.plan import StudyPlan, differences
from agents.study.results import StudyResults, read_result, results_table
from agents.study.runner import default_study_dir, read_plan, run_study
from envs.errors import UserError

IQN = "scratch::preset=iqn,encoder=impala"


def named(*arms: str) -> list[str]:
    return make_plan(*arms).arm_names


def test_short_arms_keep_their_names() -> None:
    assert named("scratch", "frozen:/a/three-games.pt") == ["scratch", "frozen:three-games"]


@pytest.mark.parametrize(
    "arms, labels",
    [
        (["scratch", IQN], ["scratch", "iqn, impala"]),
        # What all share is left out, unless nothing is left.
        ([IQN, "scratch::preset=btr,encoder=impala"], ["iqn", "btr"]),
        (["scratch::preset=iqn", IQN], ["scratch, iqn", "impala"]),
        (
            ["scratch", "frozen:squeezenet1_0,pooling=4x4@/w/squeezenet1_0.pth"],
            ["scratch", "frozen, squeezenet1_0"],
        ),
        # What tells two arms apart stays, and the rest goes while a label is long.
        (
            [
                "scratch",
                "finetune:/w/pretrained-games",
                "finetune:/w/pretrained-games::unfreeze_from=layer2,finetune_factor=0.01",
                "finetune:/w/pretrained-games::unfreeze_from=layer2,finetune_factor=0.1",
            ],
            [
                "scratch",
                "finetune:pretrained-games",
                "finetune, finetune_factor=0.01",
                "finetune, finetune_factor=0.1",
            ],
        ),
        # Names that only their directories tell apart.
        (
            ["frozen:/a/pretrained-on-three-games", "frozen:/b/pretrained-on-three-games"],
            ["frozen:a/pretrained-on-three-games", "frozen:b/pretrained-on-three-games"],
        ),
    ],
)
def test_long_arms_get_short_labels(arms: list[str], labels: list[str]) -> None:
    assert named(*arms) == labels


def test_labels_change_neither_directories_nor_the_identity_of_a_study() -> None:
    plan = make_plan("scratch", IQN)
    labelled = replace(plan, labels=("PPO", "IQN, large"))
    assert labelled.arm_names == ["PPO", "IQN, large"]
    assert (labelled.control, labelled.treatments) == ("PPO", ["IQN, large"])
    assert [run.directory for run in labelled.runs] == [run.directory for run in plan.runs]
    assert "scratch-impala-preset=iqn" in plan.runs[1].directory
    assert differences(plan.to_json(), labelled.to_json()) == []
    assert default_study_dir(labelled) == default_study_dir(plan)
    assert StudyPlan.from_json(labelled.to_json()).labels == labelled.labels
    # A plan without labels is written as in earlier releases.
    assert "labels" not in plan.to_json()


@pytest.mark.parametrize(
    "labels, message",
    [
        (("one",), "names 1 for 2 arms"),
        (("a", "b", "c"), "names 3 for 2 arms"),
        (("a", "a"), '"a" is given twice'),
        (("a", ""), "is empty"),
        (("a", "  "), "is empty"),
        (("a", " b"), "without spaces at its ends"),
        (("a", "b\nc"), "of one line"),
        (("a", "x" * 41), "has 41 characters: expected at most 40"),
    ],
)
def test_bad_labels_are_refused(labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        replace(make_plan(), labels=labels).validate()
    assert "\n" not in str(error.value)


def test_results_and_page_have_the_label_and_once_the_arm_in_full(tmp_path: Path) -> None:
    plan = make_plan("scratch", IQN)
    path = write_study(tmp_path / "study", plan, well)
    text = text_of(page_of(path, plan))
    assert "iqn, impala" in text
    assert text.count("scratch:impala::preset=iqn") == 1
    runs = [read_result(path, run) for run in plan.runs]
    lines = results_table(StudyResults(path, plan, runs, {}))
    assert lines[-1] == "iqn, impala: scratch:impala::preset=iqn"


def test_other_labels_of_a_finished_study_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlcnn.report.writing.draw", lambda report: {})
    plan = make_plan(seeds=2)
    path = write_study(tmp_path / "study", plan, well)
    labelled = replace(plan, labels=("mine", "theirs"))

    def no_launcher(jobs: int) -> object:
        raise AssertionError(f"{jobs} runs would be done")

    run_study(labelled, path, no_launcher, console=Console(file=io.StringIO()))  # type: ignore[arg-type]
    assert read_plan(path).labels == ("mine", "theirs")
    with open(path / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["full_arm"]) for row in rows[:2]] == [
        ("mine", "scratch"),
        ("theirs", "frozen-random"),
    ]
