"""What a page says in plain words, and the words that it explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from rlcnn.report import ArmFacts, Levels, Report, RunResult
from rlcnn.report.glossary import MEANINGS, Glossary, word_id
from rlcnn.report.page import lead, render
from rlcnn.report.plain_words import PlainWords, clearest_first, plain_words
from rlcnn.stats import judge

PONG = Levels(random=-20.0, human=15.0)


def report_of(scores: Mapping[str, Sequence[float]], **changes: Any) -> Report:
    """A study of Pong whose control is the first arm."""
    control, *others = scores
    arrays = {arm: (np.array(points)[:, None] + 20) / 35 for arm, points in scores.items()}
    runs = tuple(
        RunResult("Pong", arm, seed, "done", score, steps=1000, wall_seconds=600.0)
        for arm, points in scores.items()
        for seed, score in enumerate(points)
    )
    given: dict[str, Any] = {
        "title": "Pong",
        "games": ("Pong",),
        "arms": tuple(ArmFacts(arm, "nature", "trained") for arm in scores),
        "control": control,
        "runs": runs,
        "levels": {"Pong": PONG},
        "verdicts": tuple(judge(arrays, arm, control, comparisons=len(others)) for arm in others),
        "unit": "human-normalised score",
        **changes,
    }
    return Report(**given)


def plain_of(report: Report) -> PlainWords:
    said = plain_words(report)
    assert said is not None
    return said


SCORES = {
    "scratch": [0.0, 1.0, 2.0, 3.0, 4.0],
    "iqn, impala": [1.0, 1.5, 2.5, 3.5, 3.0],
    "frozen": [10.0, 11.0, 12.0, 13.0, 14.0],
}


def test_the_clearest_verdict_comes_first_in_points() -> None:
    report = report_of(SCORES)
    assert [v.treatment for v in clearest_first(report.verdicts)] == ["frozen", "iqn, impala"]
    said = plain_of(report)
    assert said.lead == "frozen is better than scratch: 12.0 points against 2.00 on average."
    (other,) = said.others
    assert other.startswith('It is not settled whether "iqn, impala" is better or worse than')
    assert other.endswith("2.30 points against 2.00 on average, which can be chance alone.")
    # A label with a comma is one name in every sentence.
    assert '"iqn, impala"' in lead(report.verdicts)
    assert any('"iqn, impala"' in verdict.sentence for verdict in report.verdicts)


def test_several_games_are_compared_on_the_way_to_a_person() -> None:
    runs = tuple(
        RunResult(game, arm, seed, "done", score)
        for game in ("Pong", "Boxing")
        for arm, points in SCORES.items()
        for seed, score in enumerate(points)
    )
    levels = {"Pong": PONG, "Boxing": PONG}
    report = report_of(SCORES, games=("Pong", "Boxing"), runs=runs, levels=levels)
    said = plain_of(report)
    assert said.lead == (
        "frozen is better than scratch: 91% against 63% of the way from random play to a person,"
        " on average."
    )
    assert said.conclude[0].startswith("In Pong and Boxing, with these options,")
    assert "% to " in said.conclude[0]
    assert said.pairs[0].count("every run of frozen beat every run of scratch in") == 1
    # Without a human's scale there is no share of a way.
    plain = plain_of(replace(report, unit="deviations of random play"))
    assert plain.lead == "frozen is better than scratch."
    assert "in deviations of random play" in plain.conclude[0]
    assert plain.others[0].endswith("than scratch: the difference can be chance alone.")


def test_points_stand_beside_random_play_and_a_person() -> None:
    rows = {row.arm: row for row in plain_of(report_of(SCORES)).points}
    assert list(rows) == [*SCORES, "random play", "a person"]
    # 32 points of the 35 between random play and a person.
    assert rows["frozen"].scores == ("12.0 (91%)",)
    assert rows["random play"].scores == ("\N{MINUS SIGN}20.0 (0%)",)
    assert rows["a person"].scores == ("15.0 (100%)",)
    assert rows["frozen"].time == "10 min"
    # Without a human's score there is no share.
    unknown = report_of(SCORES, levels={"Pong": Levels(random=-20.0)})
    assert [row.scores for row in plain_of(unknown).points][2:] == [
        ("12.0",),
        ("\N{MINUS SIGN}20.0",),
    ]


def test_runs_are_counted_against_runs() -> None:
    first, second = plain_of(report_of(SCORES)).pairs
    assert first == "Every run of frozen beat every run of scratch."
    # 1: one below, one equal; 1.5: two below; 2.5 and 3: three, one equal; 3.5: four.
    assert second == (
        '3 of 5 runs of "iqn, impala" beat the middle run of scratch; of all 25 pairs of runs it'
        " won 13 and lost 10."
    )


def test_conclusions_name_what_the_study_cannot_say() -> None:
    said = plain_of(report_of(SCORES))
    (conclusion,) = said.conclude
    assert conclusion.startswith("In Pong, with these options, agents of frozen score more")
    assert "points" in conclusion
    assert any(
        text.startswith('That "iqn, impala" and scratch are equal') for text in said.not_conclude
    )
    assert said.not_conclude[-1].startswith("That the same holds in other games")
    few = plain_of(report_of({arm: scores[:3] for arm, scores in SCORES.items()}))
    assert any("fewer than 5 runs" in text for text in few.not_conclude)
    assert "too few to be sure" in few.lead


def test_the_cost_has_steps_time_and_weights() -> None:
    report = report_of(SCORES)
    scratch, *others = report.arms
    bought = replace(others[-1], origin="frozen.safetensors", cost="500,000 agent steps")
    runs, weights = plain_of(replace(report, arms=(scratch, others[0], bought))).cost
    assert runs == "15 runs and 15,000 agent steps, 2.5 h of the runs' wall time together."
    assert weights == "The weights of frozen cost more before the study: 500,000 agent steps."


@pytest.mark.parametrize("state", ["failed", "dead"])
def test_a_failed_or_dead_run_is_named(state: str) -> None:
    report = report_of(SCORES)
    first, *others = report.runs
    odd = (
        replace(first, state="failed", score=None, reason="it diverged")
        if state == "failed"
        else replace(first, score=-21.0, best_game=-20.0)
    )
    (sentence,) = plain_of(replace(report, runs=(odd, *others))).odd
    assert sentence.startswith("1 run of scratch ")
    assert sentence.endswith("(seed 0).")
    assert ("failed" in sentence) == (state == "failed")
    assert ("scored nothing" in sentence) == (state == "dead")
    # A run with one game above random play is not dead.
    alive = replace(first, best_game=-19.0)
    assert plain_of(replace(report, runs=(alive, *others))).odd == ()


def test_a_study_in_which_nothing_learned_compares_nothing() -> None:
    dead = report_of({"scratch": [-21.0] * 5, "frozen": [-20.5] * 5})
    said = plain_of(dead)
    assert said.lead == "No arm learned to play, so this study cannot compare them."
    assert said.others == ()
    assert plain_words(replace(dead, verdicts=())) is None


# -- words -----------------------------------------------------------------------------------------


class Buttons(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.buttons: list[str] = []
        self.text = ""
        self._within = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag == "button"
        if self._within:
            self.buttons.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._within:
            self.buttons[-1] += data


@pytest.mark.parametrize(
    "html, words",
    [
        ("<p>The IQM is a mean.</p>", ["IQM", "mean"]),
        # Each word once in the text and once in the heads of tables.
        (
            "<p>A run, and runs.</p><thead><tr><th>run</th></tr></thead><p>run</p>",
            ["run", "run"],
        ),
        ("<p>area under the\ncurve</p>", ["area under the\ncurve"]),
        # Names of arms are no words, and neither is what is in a table, a link or code.
        ("<p>frozen:resnet18,pooling=mean and median-ish, runs/pong</p>", []),
        ('<td>mean</td><th scope="row">median</th><a href="#x">run</a><code>p</code>', []),
        ("<p>p is the p-value</p>", ["p"]),
        ('<img alt="mean of runs">', []),
    ],
)
def test_words_become_buttons(html: str, words: list[str]) -> None:
    page = Buttons(Glossary().link(html))
    assert page.buttons == words
    assert page.text == Buttons(html).text


def test_every_button_of_a_page_has_its_line() -> None:
    page = render(report_of(SCORES), {})
    for word, (_, meaning) in MEANINGS.items():
        target = f'popovertarget="{word_id(word)}"'
        line = f'<div popover class="meaning" id="{word_id(word)}">'
        assert (target in page) == (line in page)
        assert meaning.endswith(".")
    for word in ("confidence interval", "p-value", "smallest difference found", "bootstrap"):
        assert f'id="{word_id(word)}"' in page or word == "bootstrap"
    assert len({word_id(word) for word in MEANINGS}) == len(MEANINGS)
