"""Linear SVMs by a solver that does not mind features which go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# The largest slope at the end, as a share of that at zero weights.
_TOLERANCE = 1e-4
_MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class LinearSVM:
    """One class against the rest, for each class.

    Attributes:
        classes: int64 (classes,), as they occur in the labels.
        weights: float64 (features + 1, classes); the last row are the intercepts.
        converged: whether the solver reached its tolerance.
    """

    classes: npt.NDArray[np.int64]
    weights: Array
    converged: bool

    def predict(self, features: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The class whose decision is highest, for features (images, features)."""
        scores = np.asarray(features, dtype=np.float64) @ self.weights[:-1] + self.weights[-1]
        predicted: npt.NDArray[np.int64] = self.classes[scores.argmax(axis=1)]
        return predicted


def fit_linear_svms(
    features: npt.ArrayLike, labels: npt.NDArray[np.int64], cs: Sequence[float]
) -> list[LinearSVM]:
    """Fits an SVM for each C: what scikit-learn's ``LinearSVC`` minimises, solved otherwise.

    For each class ``|w|^2 / 2 + C sum_i max(0, 1 - y_i w x_i)^2`` (Fan et al. 2008, "LIBLINEAR",
    L2-regularised and L2-loss), where y is 1 for the class and -1 for the rest and x ends with a 1,
    so that the intercept is penalised as it is there.

    Features of a network are correlated, and most of all those of a random one: the more so, the
    more steps LIBLINEAR takes. Here the weights are changed to variables in which the curvature is
    1 where every image lies within the margin, and less elsewhere, and L-BFGS does the rest, for
    all classes at once.

    Args:
        features: (images, features), standardised.
        labels: (images,), of at least two classes.
        cs: least first; each fit starts from the one before.
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import minimize

    inputs = np.column_stack([features, np.ones(len(labels))]).astype(np.float64)
    classes = np.unique(labels)
    signs = np.where(labels[:, None] == classes, 1.0, -1.0)
    gram = inputs.T @ inputs
    shape = (inputs.shape[1], len(classes))
    weights = np.zeros(shape)
    fitted = []
    for c in cs:
        # Weights are factor^-T times the variables.
        factor = cholesky(np.eye(len(gram)) + 2 * c * gram, lower=True, check_finite=False)

        def to_weights(flat: Array, factor: Array = factor) -> Array:
            solved: Array = solve_triangular(
                factor, flat.reshape(shape), lower=True, trans="T", check_finite=False
            )
            return solved

        def objective(flat: Array, c: float = c, factor: Array = factor) -> tuple[float, Array]:
            weights = to_weights(flat, factor)
            short = np.maximum(0.0, 1 - signs * (inputs @ weights))
            value = (weights**2).sum() / 2 + c * (short**2).sum()
            slope = weights - 2 * c * (inputs.T @ (signs * short))
            slope = solve_triangular(factor, slope, lower=True, check_finite=False)
            return float(value), slope.ravel()

        steepest = np.abs(objective(np.zeros(weights.size))[1]).max()
        found = minimize(
            objective,
            (factor.T @ weights).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "gtol": _TOLERANCE * steepest,
                "ftol": 0.0,
                "maxiter": _MAX_ITERATIONS,
                "maxfun": 2 * _MAX_ITERATIONS,
            },
        )
        weights = to_weights(found.x)
        fitted.append(LinearSVM(classes, weights, bool(found.success)))
    return fitted
