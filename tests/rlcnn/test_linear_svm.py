"""The linear SVM, beside the solver whose problem it solves."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from rlcnn.linear_svm import LinearSVM, fit_linear_svms


def correlated(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features whose directions differ a hundredfold in their spread, and classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    hidden = random.normal(size=(count, 24)) + 1.5 * np.eye(24)[labels]
    mix = np.random.default_rng(7).normal(size=(24, 24)) * np.logspace(0, -2, 24)[:, None]
    features = hidden @ mix
    return (features - features.mean(axis=0)) / features.std(axis=0), labels


def objective(svm: LinearSVM, features: np.ndarray, labels: np.ndarray, c: float) -> float:
    signs = np.where(labels[:, None] == svm.classes, 1, -1)
    scores = features @ svm.weights[:-1] + svm.weights[-1]
    short = np.maximum(0, 1 - signs * scores)
    return float((svm.weights**2).sum() / 2 + c * (short**2).sum())


@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_the_svm_of_scikit_learn(classes: int) -> None:
    features, labels = correlated(300, classes, 0)
    others = correlated(300, classes, 1)[0]
    cs = (1e-4, 1e-2, 1.0)
    for c, own in zip(cs, fit_linear_svms(features, labels, cs), strict=True):
        assert own.converged
        # Its default tolerance leaves the weights of such features in their third digit.
        plain = LinearSVC(C=c, dual=False, tol=1e-9, max_iter=100_000).fit(features, labels)
        scores = others @ own.weights[:-1] + own.weights[-1]
        if classes == 2:
            np.testing.assert_allclose(scores[:, 0], -scores[:, 1], atol=1e-6)
            scores = scores[:, 1]
        expected = plain.decision_function(others)
        spread = np.abs(expected).max()
        np.testing.assert_allclose(scores, expected, atol=2e-3 * spread)
        assert (own.predict(others) == plain.predict(others)).mean() > 0.99


def test_no_other_weights_are_better() -> None:
    features, labels = correlated(200, 3, 0)
    (svm,) = fit_linear_svms(features, labels, [0.1])
    best = objective(svm, features, labels, 0.1)
    random = np.random.default_rng(0)
    for _ in range(20):
        step = 0.01 * random.normal(size=svm.weights.shape)
        moved = LinearSVM(svm.classes, svm.weights + step, True)
        assert objective(moved, features, labels, 0.1) > best


def test_a_fit_does_not_hang_on_those_before_it() -> None:
    features, labels = correlated(200, 3, 0)
    alone = fit_linear_svms(features, labels, [1.0])[0]
    after = fit_linear_svms(features, labels, [1e-3, 1.0])[1]
    scale = np.abs(alone.weights).max()
    np.testing.assert_allclose(after.weights, alone.weights, atol=1e-2 * scale)


def test_more_features_than_images_are_no_obstacle() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = random.normal(size=(30, 100)) + 2 * np.eye(100)[labels]
    (svm,) = fit_linear_svms(features, labels, [1.0])
    assert svm.converged
    assert (svm.predict(features) == labels).all()


def test_labels_are_kept_as_they_are() -> None:
    features, labels = correlated(100, 2, 0)
    (svm,) = fit_linear_svms(features, np.where(labels == 0, 3, 40), [1.0])
    assert set(svm.predict(features)) == {3, 40}
