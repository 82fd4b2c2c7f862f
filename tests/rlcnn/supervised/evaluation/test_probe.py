"""Linear classifiers on features with a known signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from envs.errors import UserError
from rlcnn.data.crops import CropTransform
from rlcnn.data.images import UNKNOWN, Episodes, Split, StoredImages, Task
from rlcnn.encoders import create_encoder
from rlcnn.supervised.evaluation import probe
from rlcnn.supervised.evaluation.baselines import majority
from rlcnn.supervised.evaluation.options import METHODS, Method
from rlcnn.supervised.evaluation.probe import (
    ChosenImages,
    Comparison,
    Fit,
    build_encoder,
    choose_images,
    encode,
    fit,
    random_like,
    read_once,
)
from rlcnn.weights.load import save_encoder

SHAPE = (3, 32, 32)
CLASS = Task("class", tuple("abcd"))


def planted(count: int, seed: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    """Features of which a few show the class, on scales that differ by a factor of a million."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    features = random.normal(size=(count, 12))
    features[:, :3] += signal * np.eye(3)[labels]
    return (features * np.logspace(-3, 3, 12) + 5).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("method", METHODS)
def test_a_signal_of_any_scale_is_found(method: Method) -> None:
    found = fit(method, *planted(150, 0, 6.0), *planted(90, 1, 6.0))
    assert found.accuracy > 0.95
    lower, upper = found.interval
    assert lower < found.accuracy <= upper
    assert found.converged


@pytest.mark.parametrize("method", METHODS)
def test_without_a_signal_nothing_is_found(method: Method) -> None:
    lower, upper = fit(method, *planted(150, 0, 0.0), *planted(300, 1, 0.0)).interval
    assert lower < 1 / 3 < upper


def test_two_fits_of_one_seed_are_equal() -> None:
    first, second = (fit("svm", *planted(90, 0, 1.0), *planted(90, 1, 1.0)) for _ in range(2))
    assert first.c == second.c
    assert (first.correct == second.correct).all()


def test_features_that_are_not_finite_are_refused() -> None:
    features, labels = planted(30, 0, 1.0)
    with pytest.raises(UserError, match="not all finite"):
        fit("linear", np.full_like(features, np.nan), labels, features, labels)


def test_the_gain_is_over_the_mean_of_random_encoders() -> None:
    def right(*images: int) -> Fit:
        return Fit(np.array(images, dtype=bool), 1.0, True)

    own = right(1, 1, 1, 0)
    comparison = Comparison(own, {0: right(1, 0, 0, 0), 1: right(1, 1, 0, 0)})
    gain = comparison.gain
    assert gain is not None
    assert gain.value == pytest.approx(0.75 - 0.375)
    assert gain.interval is not None
    assert gain.interval[0] < 0.375 < gain.interval[1]
    document = comparison.to_json()
    assert document["gain"] == gain.value
    assert document["gain_interval"] == list(gain.interval)
    assert document["own"]["accuracy"] == 0.75
    assert [one["seed"] for one in document["random"]] == [0, 1]
    assert Comparison(None, {0: own}).to_json()["gain"] is None


# Encoders.


def images(count: int, seed: int = 0) -> StoredImages:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, *SHAPE), generator=random, dtype=torch.uint8)
    return StoredImages(pixels, torch.arange(count) % 4, [CLASS])


# cifar_resnet has BatchNorm, whose statistics must not move.
@pytest.mark.parametrize("name", ["lenet", "cifar_resnet", "squeezenet1_1:features.4"])
def test_features_are_the_encoders_and_leave_it_as_it_is(name: str) -> None:
    encoder, report = build_encoder(name, SHAPE, {}, "none")
    assert report is None
    data = images(5)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    chosen = ChosenImages(data, torch.tensor([4, 0, 2]), CLASS)
    assert [chosen.name(index) for index in range(3)] == ["image 4", "image 0", "image 2"]
    features = encode(encoder, chosen, batch_size=2)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert features.shape == (3, encoder.features_dim)
    with torch.no_grad():
        expected = encoder.eval()(data.images[[4, 0, 2]])
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_backbones_features_are_not_sent_through_an_untrained_projection() -> None:
    encoder, _ = build_encoder("squeezenet1_1:features.4", SHAPE, {"pooling": "mean"}, "none")
    assert encoder.features_dim == 128
    chosen, _ = build_encoder("squeezenet1_1:features.4", SHAPE, {"projection": "learned"}, "none")
    assert chosen.features_dim == 256


def test_long_vectors_are_projected_alike_for_encoders_of_one_architecture() -> None:
    encoder = create_encoder("nature", (3, 44, 44))
    data = StoredImages(
        torch.zeros(2, 3, 44, 44, dtype=torch.uint8), torch.tensor([0, 1]), images(1).tasks
    )
    full, cut = (encode(encoder, data, max_features=size) for size in (None, 16))
    assert full.shape == (2, 512)
    assert cut.shape == (2, 16)
    torch.manual_seed(99)
    np.testing.assert_array_equal(cut, encode(encoder, data, max_features=16))


def test_random_encoders_are_of_the_same_architecture_and_of_their_seed(tmp_path: Path) -> None:
    source = create_encoder("cifar_resnet", SHAPE, depth=8)
    save_encoder(source, tmp_path / "e.safetensors")
    encoder, report = build_encoder("cifar_resnet", SHAPE, {}, str(tmp_path / "e.safetensors"))
    assert report is not None
    # The file's own options count where none are given.
    assert encoder.spec() == source.spec()
    first, again, other = (random_like(encoder, seed) for seed in (0, 0, 1))
    assert first.spec() == encoder.spec()
    weight = "trunk." + next(n for n, p in encoder.trunk.named_parameters() if p.ndim == 4)
    loaded, *fresh = (e.get_parameter(weight) for e in (encoder, first, again, other))
    assert torch.equal(loaded, source.get_parameter(weight))
    assert torch.equal(fresh[0], fresh[1])
    assert not torch.equal(fresh[0], fresh[2])
    assert not torch.equal(fresh[0], loaded)


def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    save_encoder(create_encoder("lenet", SHAPE), tmp_path / "e.safetensors")
    with pytest.raises(UserError, match='holds weights of encoder "lenet"'):
        build_encoder("cifar_resnet", SHAPE, {}, str(tmp_path / "e.safetensors"))


# Images.


def test_images_are_drawn_by_the_seed_from_those_of_known_class() -> None:
    train, test = images(40), images(20, seed=1)
    train.labels[::2] = UNKNOWN

    def chosen(seed: int) -> tuple[list[int], list[int]]:
        drawn = choose_images(Split(train, test), CLASS, train_size=16, test_size=7, seed=seed)
        first, second = (part.indices.tolist() for part in drawn if isinstance(part, ChosenImages))
        return first, second

    assert chosen(0) == chosen(0) != chosen(1)
    for part, size, of in zip(chosen(0), (16, 7), (40, 20), strict=True):
        assert len(set(part)) == size
        assert max(part) < of
    assert all(index % 2 for index in chosen(0)[0])
    everything = choose_images(Split(train, test), CLASS, seed=0)
    assert len(everything.train) == 20
    assert everything.test.labels[:, 0].tolist() == [i % 4 for i in range(20)]


def test_images_that_are_read_once_are_those_that_were_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = Split(images(12), images(8, seed=1))
    chosen = choose_images(split, CLASS, train_size=10, test_size=3, size=16, seed=0)
    stored = read_once(chosen)
    for source, some, read in zip(split, chosen, stored, strict=True):
        assert isinstance(some, ChosenImages)
        assert isinstance(read, StoredImages)
        assert torch.equal(read.labels, source.labels[some.indices])
        crops = [CropTransform(16, 16).centre(source[index]) for index in some.indices.tolist()]
        assert torch.equal(read.images, torch.cat(crops))
    # What is too large is read again for each encoder.
    monkeypatch.setattr(probe, "MAX_BYTES_IN_MEMORY", 13 * 3 * 16 * 16 - 1)
    assert read_once(chosen) is chosen


def gain_interval(own: Fit, random: Fit) -> tuple[float, float]:
    gain = Comparison(own, {0: random}).gain
    assert gain is not None
    assert gain.interval is not None
    return gain.interval


def test_intervals_over_few_episodes_are_wider_than_over_images() -> None:
    correct = np.repeat([True, True, False, True], 25)
    played = Episodes(torch.zeros(100, dtype=torch.int64), torch.arange(100) // 25)
    alone, together = Fit(correct, 1.0, True), Fit(correct, 1.0, True, played)
    widths = [upper - lower for lower, upper in (alone.interval, together.interval)]
    assert widths[1] > 3 * widths[0]
    wrong = Fit(~correct, 1.0, True)
    gains = [gain_interval(own, wrong) for own in (alone, together)]
    assert gains[1][1] - gains[1][0] > 3 * (gains[0][1] - gains[0][0])
    once = Fit(correct, 1.0, True, Episodes(played.games, torch.zeros(100, dtype=torch.int64)))
    assert once.interval == (0, 1)
    assert gain_interval(once, wrong) == (-1, 1)


def test_the_majority_class_is_that_of_the_training_images() -> None:
    train, test = images(8), images(8, seed=1)
    train.labels[:, 0] = torch.tensor([2, 2, 2, 2, 2, 1, 1, 1])
    chosen = choose_images(Split(train, test), CLASS, seed=0)
    first, second = (part.labels for part in chosen)
    assert majority(first, second, [CLASS]).figures["test/top1"] == 0.25


@pytest.mark.parametrize(
    "sizes, said",
    [
        ((0, None), "--train-size 0 must be at least 1 and at most 40"),
        ((41, None), "--train-size 41 must be at least 1 and at most 40"),
        ((None, 21), "--test-size 21 must be at least 1 and at most 20"),
        ((1, None), "of one class: expected at least two"),
        ((3, None), "only one image to train with"),
    ],
)
def test_sizes_that_cannot_be_had_are_refused(
    sizes: tuple[int | None, int | None], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        choose_images(
            Split(images(40), images(20)), CLASS, train_size=sizes[0], test_size=sizes[1], seed=0
        )
