"""Verdicts: findings, sentences and notes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.property_tests import given, st

from envs.errors import UserError
from rlcnn.stats import judge, learned_arms, simulated_coverage

SPREAD = np.array([-0.1, -0.05, 0.0, 0.05, 0.1])[:, None]


def study(treatment: float, control: float, runs: int = 5) -> dict[str, np.ndarray]:
    return {"frozen": treatment + SPREAD[:runs], "scratch": control + SPREAD[:runs]}


@pytest.mark.parametrize(
    ("treatment", "control", "runs", "finding"),
    [
        (1.0, 0.5, 5, "better"),
        (0.5, 1.0, 5, "worse"),
        (1.0, 0.98, 5, "inconclusive"),
        (1.0, 0.2, 4, "suggestively better"),
        (0.2, 1.0, 3, "suggestively worse"),
        (0.01, -0.4, 5, "no arm learned"),
    ],
)
def test_findings(treatment: float, control: float, runs: int, finding: str) -> None:
    verdict = judge(study(treatment, control, runs), "frozen", "scratch")
    assert verdict.finding == finding
    assert verdict.sentence.endswith(").")
    assert "\n" not in verdict.sentence
    assert verdict.runs == (runs, runs)


def test_the_sentence_contains_the_figures() -> None:
    verdict = judge(study(1.0, 0.5), "frozen", "scratch")
    assert verdict.sentence == (
        "frozen is better than scratch (difference +0.5 in human-normalised score, 95% interval"
        " +0.385 to +0.615; 1 game, 5 runs per arm)."
    )
    assert verdict.p_value == pytest.approx(2 / 252)
    assert verdict.smallest_p == pytest.approx(2 / 252)
    assert verdict.coverage == simulated_coverage((5, 5), 1)


@given(st.integers(2, 4), st.floats(-100, 100), st.floats(-100, 100))
def test_fewer_than_five_runs_are_never_more_than_suggestive(
    runs: int, treatment: float, control: float
) -> None:
    verdict = judge(study(treatment, control, runs), "frozen", "scratch")
    assert verdict.finding not in ("better", "worse")
    text = "\n".join(verdict.notes)
    assert f"no test can give a p-value below {verdict.smallest_p:.2g}" in text
    assert f"a true difference of {verdict.smallest_detectable:.2g}" in text


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_the_finding_follows_from_the_interval(treatment: float, control: float) -> None:
    verdict = judge(study(treatment, control), "frozen", "scratch")
    if verdict.finding == "better":
        assert verdict.difference.low > 0
    elif verdict.finding == "worse":
        assert verdict.difference.high < 0
    elif verdict.finding == "inconclusive":
        assert verdict.difference.low <= 0 <= verdict.difference.high
    else:
        assert max(treatment, control) <= 0.05


def test_the_arm_with_fewer_runs_decides_how_firm_a_finding_is() -> None:
    scores = {"frozen": 1.0 + SPREAD, "scratch": 0.2 + SPREAD[:4]}
    verdict = judge(scores, "frozen", "scratch")
    assert verdict.finding == "suggestively better"
    assert (
        "the arms have different numbers of runs, 5 and 4: the interval is as wide as if both had 4"
        in verdict.notes
    )
    assert "5 and 4 runs per arm" in verdict.sentence


def test_an_arm_has_learned_where_most_of_its_runs_did_in_some_game() -> None:
    scores = {
        "most": np.array([[0.0, 0.9], [0.0, 0.9], [0.0, 0.0]]),
        "one": np.array([[0.0, 0.9], [0.0, 0.0], [0.0, 0.0]]),
    }
    assert learned_arms(scores) == ("most",)
    assert learned_arms(scores, [0.05, 0.95]) == ()
    assert learned_arms(scores, -1.0) == ("most", "one")


def test_a_third_arm_counts_as_having_learned() -> None:
    scores = {**study(0.0, 0.01), "third": 0.9 + SPREAD}
    verdict = judge(scores, "frozen", "scratch")
    assert verdict.finding == "inconclusive"
    assert verdict.learned == ("third",)
    assert "not clearly above the random agent: frozen, scratch" in verdict.notes


def test_runs_that_do_not_differ_settle_nothing() -> None:
    verdict = judge({"a": np.ones(5), "b": np.full(5, 0.5)}, "a", "b")
    assert verdict.finding == "inconclusive"
    assert "no interval, since all runs of each arm are equal" in verdict.sentence
    assert "all runs of each arm are equal, so there is no interval" in verdict.notes


def test_several_verdicts_widen_every_interval() -> None:
    one = judge(study(1.0, 0.5), "frozen", "scratch")
    four = judge(study(1.0, 0.5), "frozen", "scratch", comparisons=4)
    assert four.difference.confidence == pytest.approx(0.9875)
    assert four.difference.low < one.difference.low
    assert "simultaneous 95% interval" in four.sentence
    assert any(note.startswith("one of 4 verdicts") for note in four.notes)


@pytest.mark.parametrize(
    ("runs", "comparisons", "warning"),
    [
        (
            (5, 10),
            1,
            "a 95% interval may cover less: .*of 1 game with 5 and 10 runs per arm",
        ),
        ((5, 5), 4, "a 98.75% interval may cover less: .*of 1 game with 5 runs per arm"),
        ((40, 40), 1, None),
    ],
)
def test_a_design_whose_interval_may_cover_too_little_has_a_warning(
    runs: tuple[int, int], comparisons: int, warning: str | None
) -> None:
    rng = np.random.default_rng(0)
    scores = {arm: rng.normal(1, 0.2, (count, 1)) for arm, count in zip("ab", runs, strict=True)}
    verdict = judge(scores, "a", "b", comparisons=comparisons)
    warnings = [note for note in verdict.notes if "may cover less" in note]
    if warning is None:
        assert warnings == []
    else:
        assert re.match(warning, warnings[0])
        least, greatest = min(verdict.coverage.values()), max(verdict.coverage.values())
        assert f"in {100 * least:.0f}% to {100 * greatest:.0f}%" in warnings[0]
        assert "one arm's runs fail" in warnings[0]


def test_equal_arms_are_seldom_called_different() -> None:
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(60):
        scores = {arm: 0.5 + rng.lognormal(size=(5, 1)) for arm in "ab"}
        called += judge(scores, "a", "b").finding != "inconclusive"
    # 5% of 60 are 3; that 10 or more are called is less probable than 0.001.
    assert called < 10


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({}, "no scores"),
        ({"a": [0.1, 0.2]}, "a comparison needs 2 arms"),
        ({"a": [0.1, 0.2], "bb": [0.1, 0.2]}, 'arm "b" has no scores.*Did you mean "bb"'),
        ({"a": [0.1], "b": [0.1, 0.2]}, 'arm "a" has 1 run:'),
        ({"a": [0.1, np.nan], "b": [0.1, 0.2]}, 'arm "a" has the score nan'),
        ({"a": [[0.1, 0.2], [0.1]], "b": [0.1, 0.2]}, "ragged"),
        ({"a": [[0.1, 0.2], [0.1, 0.2]], "b": [0.1, 0.2]}, "the same games for all"),
    ],
)
def test_scores_that_give_no_verdict_are_refused(scores: dict[str, list[float]], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        judge(scores, "a", "b")
    assert "\n" not in str(caught.value)


def test_options_that_give_no_verdict_are_refused() -> None:
    with pytest.raises(UserError, match="compared with itself"):
        judge(study(1, 0), "frozen", "frozen")
    with pytest.raises(UserError, match="0 comparisons"):
        judge(study(1, 0), "frozen", "scratch", comparisons=0)
    with pytest.raises(UserError, match="limits of what counts as learned"):
        judge(study(1, 0), "frozen", "scratch", learned_above=[0.1, 0.2, 0.3])


def test_the_sentence_names_failed_runs() -> None:
    scores = study(1.0, 0.5)
    verdict = judge(scores, "frozen", "scratch", failed={"frozen": 2, "scratch": 0, "other": 1})
    assert "runs per arm, of which failed: 2 of frozen)" in verdict.sentence
    both = judge(scores, "frozen", "scratch", failed={"frozen": 2, "scratch": 1})
    assert "of which failed: 2 of frozen and 1 of scratch)" in both.sentence
    assert "failed" not in judge(scores, "frozen", "scratch").sentence


def test_failures_are_counted_among_the_runs_of_all_games() -> None:
    scores = {arm: np.hstack([array] * 2) for arm, array in study(1.0, 0.5).items()}
    text = judge(scores, "frozen", "scratch", failed={"frozen": 6}).sentence
    assert "; 2 games, 5 runs per arm in each, of which failed: 6 of frozen's 10)" in text
