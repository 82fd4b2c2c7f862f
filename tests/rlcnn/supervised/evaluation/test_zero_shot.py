"""ConSE against an example by hand, and the figures of unseen classes."""

from __future__ import annotations

import math

import pytest
import torch

from rlcnn.supervised.evaluation.zero_shot import ZeroShotEvaluation, conse


def test_conse_is_the_worked_example() -> None:
    # lion, apple and tiger, seen; and liger, orange and cat, unseen, in a plane.
    seen = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    unseen = torch.tensor([[2.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    probabilities = torch.tensor([[0.5, 0.1, 0.4], [0.2, 0.7, 0.1]])
    # The two most probable, over their sum: (0.5 (1, 0) + 0.4 (3, 4)) / 0.9 = (17, 16) / 9, and
    # (0.2 (1, 0) + 0.7 (0, 2)) / 0.9 = (2, 14) / 9.
    first, second = math.hypot(17, 16), math.hypot(2, 14)
    expected = torch.tensor(
        [
            [(2 * 17 + 16) / (math.sqrt(5) * first), 16 / first, -17 / first],
            [(2 * 2 + 14) / (math.sqrt(5) * second), 14 / second, -2 / second],
        ]
    )
    found = conse(probabilities, seen, unseen, top=2)
    torch.testing.assert_close(found, expected)
    assert found.argmax(dim=1).tolist() == [0, 1]
    # The most probable class alone is its own vector, whatever its probability.
    (alone, _) = conse(probabilities, seen, unseen, top=1)
    torch.testing.assert_close(alone, torch.tensor([2 / math.sqrt(5), 0.0, -1.0]))
    # More than there are: all of them, (0.5 + 1.2, 0.2 + 1.6).
    (all_of_them, _) = conse(probabilities, seen, unseen, top=10)
    assert all_of_them[1].item() == pytest.approx(1.8 / math.hypot(1.7, 1.8))


def test_hits_stand_beside_chance() -> None:
    similarities = torch.tensor(
        [[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]
    )
    labels = torch.tensor([0, 1, 0, 2])
    evaluation = ZeroShotEvaluation(("cat", "dog", "fish"), labels, similarities)
    figures = evaluation.figures()
    # Three classes: hit@3 says nothing.
    assert {name for name in figures if "_" not in name} == {"hit1", "hit2"}
    assert (figures["hit1"], figures["hit2"]) == (0.25, 0.5)
    assert figures["hit1_chance"] == pytest.approx(1 / 3)
    assert figures["hit2_chance"] == pytest.approx(2 / 3)
    assert evaluation.summary()[0].startswith("hit@1 25.00% (95% interval ")
    assert evaluation.summary()[0].endswith("; chance 33.33%)")
    assert evaluation.to_json()["confusion"]["classes"] == ["cat", "dog", "fish"]


def test_equal_similarities_hit_by_chance() -> None:
    labels = torch.arange(4)
    evaluation = ZeroShotEvaluation(tuple("abcd"), labels, torch.zeros(4, 4))
    figures = evaluation.figures()
    assert figures["hit1"] == figures["hit1_chance"] == 0.25
    assert figures["hit2"] == figures["hit2_chance"] == 0.5
