"""Neighbours and embeddings of features whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.errors import UserError
from rlcnn.data.images import Task
from rlcnn.visualize.embedding import draw_embedding, embed
from rlcnn.visualize.neighbours import Neighbours, chance, draw_neighbours, find_neighbours

TRAIN = np.array([[0, 0], [3, 0], [0, 4], [10, 10]], dtype=np.float32)


def test_neighbours_are_the_nearest_by_euclidean_distance() -> None:
    found = find_neighbours(np.array([[0, 1], [9, 9]], dtype=np.float32), TRAIN, 3)
    assert found.indices.tolist() == [[0, 2, 1], [3, 2, 1]]
    expected = [[1, 3, 10**0.5], [2**0.5, 106**0.5, 117**0.5]]
    assert np.allclose(found.distances, expected, rtol=1e-4)


def test_shares_count_the_class_of_the_query() -> None:
    found = Neighbours(np.array([[0, 2, 1], [3, 2, 1]]), np.zeros((2, 3), np.float32))
    train, queries = np.array([0, 0, 1, 1]), np.array([0, 1])
    assert found.share(queries, train) == pytest.approx(4 / 6)
    # Three quarters of the images are of class 0, and no image is of class 2.
    assert chance(np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1])) == pytest.approx(
        (0.75 + 0.75 + 0.25 + 0) / 4
    )


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(UserError, match="--neighbours 5 must be at most 4"):
        find_neighbours(TRAIN, TRAIN, 5)


def test_frames_of_neighbours_say_whether_the_class_is_the_same() -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    found = Neighbours(np.array([[0, 1]]), np.array([[0.5, 12.0]], np.float32))
    same = np.array([[True, False]])
    figure = draw_neighbours(
        found, lambda _: image, lambda _: image, ["query: a.png\ncat"], "class {}".format, same
    )
    query, *others = figure.axes
    assert query.get_title() == "query: a.png\ncat"
    assert [axes.get_title() for axes in others] == [
        "class 0\ndistance 0.50",
        "class 1\ndistance 12.0",
    ]
    # By line as well as by colour, for print without colour.
    styles = [axes.spines["left"].get_linestyle() for axes in others]
    assert styles[0] in ("-", "solid")
    assert styles[1] not in ("-", "solid")


def test_groups_far_apart_stay_apart_on_the_plane() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    features = random.normal(size=(40, 60)).astype(np.float32) + 30 * labels[:, None]
    places = embed(features, perplexity=5, seed=0)
    assert places.shape == (40, 2)
    nearest = find_neighbours(places, places, 2).indices[:, 1]
    assert (labels[nearest] == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("features", "perplexity", "said"),
    [
        (TRAIN, 4, "--perplexity 4 must be more than 0 and less than 4"),
        (np.ones((9, 3), np.float32), 2, "all images have the same features"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    features: np.ndarray, perplexity: float, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        embed(features, perplexity=perplexity, seed=0)


def test_no_two_classes_look_alike_and_the_rarest_of_many_are_grey() -> None:
    names = tuple(f"class {index}" for index in range(30))
    # Class 29 is the rarest.
    labels = np.repeat(np.arange(30), np.arange(31, 1, -1))
    places = np.random.default_rng(0).normal(size=(len(labels), 2)).astype(np.float32)
    figure = draw_embedding(places, labels, Task("class", names))
    grey, *named = figure.axes[0].collections
    assert grey.get_label() == "9 other classes"
    assert [points.get_label() for points in named] == list(names[:21])
    looks = {(str(p.get_facecolor()), str(p.get_paths()[0].vertices)) for p in named}
    assert len(looks) == 21


@pytest.mark.parametrize(
    ("first", "values"),
    [(("0-6", "7"), [0.0, 7.0]), (("-3", "-0.5"), [-3.0, -0.5]), (("-3--1", "0-2"), [-3.0, 0.0])],
)
def test_classes_that_are_numbers_have_a_scale(first: tuple[str, str], values: list[float]) -> None:
    labels, places = _places(21)
    names = (*first, *map(str, range(8, 27)))
    figure = draw_embedding(places, labels, Task("Pong/ball_x", names))
    (points,) = figure.axes[0].collections
    assert np.asarray(points.get_array())[:2].tolist() == values
    assert figure.axes[1].get_ylabel() == "Pong/ball_x"


@pytest.mark.parametrize("name", ["1.2.3", "2024-05-01"])
def test_names_like_numbers_are_classes(name: str) -> None:
    labels, places = _places(12)
    figure = draw_embedding(places, labels, Task("class", (name, *map(str, range(11)))))
    assert figure.axes[0].collections[0].get_label() == name


def _places(count: int) -> tuple[np.ndarray, np.ndarray]:
    places = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    return np.arange(count), places
