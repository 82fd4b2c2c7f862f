"""Pictures of films: one size, legible whatever the game, and the decision that was made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlcnn.visualize.film_panels import (
    HEIGHT,
    DecisionView,
    FilmPanels,
    captioned,
    faded,
    tiled,
)

GAME = np.random.default_rng(0).integers(256, size=(210, 160, 3), dtype=np.uint8)
BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def decision(frames: int = 4, side: int = 84, colour: bool = False, **changes: Any) -> DecisionView:
    shape = (frames, side, side)
    values: dict[str, Any] = {
        "frames": np.zeros((*shape, 3) if colour else shape, np.uint8),
        "saliency": np.zeros(shape, np.float32),
        "scores": np.array([0.1, 0.7, 0.2]),
        "score_name": "action probabilities",
        "most": 1.0,
        "explained": "log p(LEFT)",
        "action": 1,
    }
    return DecisionView(**{**values, **changes})


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == colour).all(axis=-1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frames": 1, "side": 36, "colour": True},
        {"frames": 16, "side": 84},
        {"frames": 2, "side": 300},
        {"scores": np.linspace(-3, 2, 40), "most": None, "score_name": "Q values"},
        {"scores": np.zeros(3), "most": None},
        {"scores": np.array([1.0]), "action": 0},
    ],
)
def test_all_pictures_of_a_film_have_one_size(changes: dict[str, Any]) -> None:
    view = decision(**changes)
    panels = FilmPanels([f"ACTION WITH A NAME {n}" for n in range(len(view.scores))], "Ünïcödé" * 9)
    shapes = {panels.draw(GAME, 0).shape}
    for value in (0.0, 0.0, -1e6, 3.25):
        panels.decide(view, value)
        shapes.add(panels.draw(GAME, 12345).shape)
    ((height, width, _),) = shapes
    assert height == HEIGHT
    # H.264 needs even sides.
    assert width % 2 == 0


@pytest.mark.parametrize("shape", [(1, 1, 3), (900, 2, 3), (2, 900, 3), (800, 1200, 3)])
def test_games_of_any_size_fit(shape: tuple[int, int, int]) -> None:
    panels = FilmPanels(["a"], "title")
    assert panels.draw(np.zeros(shape, np.uint8), 0).shape[0] == HEIGHT


def test_the_chosen_action_has_a_bar_of_its_own_colour_and_length() -> None:
    panels = FilmPanels(["A", "B", "C"], "title")
    panels.decide(decision(), 1.0)
    picture = panels.draw(np.zeros_like(GAME), 0)[:, : -288 - 16]
    lengths = [coloured(picture, colour).sum(axis=1).max() for colour in (VERMILION, BLUE)]
    # 0.7 against 0.2.
    assert lengths[0] / lengths[1] == pytest.approx(3.5, rel=0.1)


def test_saliency_is_brightest_where_it_is_strongest() -> None:
    saliency = np.zeros((4, 84, 84), np.float32)
    saliency[2, 20:24, 60:64] = 1
    panels = FilmPanels(["A", "B", "C"], "title")
    panels.decide(decision(), 0.0)
    without = panels.draw(np.zeros_like(GAME), 0).astype(int)
    panels.decide(decision(saliency=saliency), 0.0)
    added = panels.draw(np.zeros_like(GAME), 0).astype(int) - without
    # The third tile of the second row begins at (224, 632).
    row, column = np.argwhere(added[224:356].sum(-1) > 100).mean(axis=0)
    assert row == pytest.approx(22 / 84 * 132, abs=2)
    assert column == pytest.approx(632 + 62 / 84 * 132, abs=2)


def test_a_picture_is_drawn_from_the_game_and_the_last_decision_alone() -> None:
    panels = FilmPanels(["A", "B", "C"], "title")
    panels.decide(decision(), 0.0)
    first = panels.draw(GAME, 1)
    np.testing.assert_array_equal(panels.draw(GAME, 1), first)
    assert (panels.draw(GAME, 2) != first).any()
    np.testing.assert_array_equal(panels.draw(GAME[::-1], 1)[:, 360:], first[:, 360:])


def test_tiles_lie_in_rows_and_fade() -> None:
    tiles = [np.full((20, 30, 3), 90, np.uint8)] * 3
    assert tiled(tiles, 2).shape == (2 * 20 + 3 * 16, 2 * 30 + 3 * 16, 3)
    assert (faded(tiles[0]) == 200).all()
    picture = captioned(GAME, ["one", "two"], 420)
    np.testing.assert_array_equal(picture[-420::2, ::2], GAME)
