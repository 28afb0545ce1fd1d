"""Extreme eigenvalues of a loss difference where a subset is classified very surely, against the whole spectrum."""

import functools
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lcmat import Signals
from lcmat.last_layer import LastLayer
from tests.harness import Setting


@functools.cache
def surely() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """600 digits under a last layer that is nearly not regularised, so that most are classified very surely."""
    pixels, labels = load_digits(return_X_y=True)
    features, labels = pixels[:600] / 16, labels[:600]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not have converged
        logits = LogisticRegression(C=100, max_iter=1000).fit(features, labels).decision_function(features)
    return features, logits, labels


def difference(surest: int) -> tuple[LastLayer, torch.Tensor, np.ndarray]:
    """The layer, the coefficients of T less the surest samples of each class, and all eigenvalues, formed plainly."""
    features, logits, labels = surely()
    ordered = np.sort(logits, axis=1)
    lead = ordered[:, -1] - ordered[:, -2]
    chosen = np.concatenate([np.flatnonzero(labels == k)[np.argsort(-lead[labels == k])[:surest]] for k in range(10)])
    c = np.full(600, 1 / 600)
    c[chosen] -= 1 / len(chosen)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    h = np.hstack([features, np.ones((600, 1))])
    hessian = sum(w * np.kron(np.diag(q) - np.outer(q, q), np.outer(x, x)) for w, q, x in zip(c, p, h, strict=True))
    return LastLayer.of(Signals(features, logits, labels)), torch.from_numpy(c), np.linalg.eigvalsh(hessian)


@pytest.mark.parametrize("surest", [1, 3])
def test_a_lowest_eigenvalue_next_to_a_cluster_at_zero(surest: int) -> None:
    """With three of each class, Lanczos alone does not end: rounding decides which of many is the lowest."""
    layer, c, values = difference(surest)
    low, high = layer.extreme_eigenvalues(c)
    assert high == pytest.approx(values[-1], rel=1e-9)
    assert low == pytest.approx(values[0], abs=1e-9 * high)
    assert (low < -1e-8) == (surest == 1), "the two cases differ: a small lowest eigenvalue, and none but rounding"


@pytest.mark.parametrize("surest", [1, 3])
def test_the_same_in_a_layer_too_large_to_form_its_hessian(surest: int, efforts: Setting) -> None:
    """The lowest is right to 10⁻⁶ of the largest."""
    efforts(most_dense=0)
    layer, c, values = difference(surest)
    low, high = layer.extreme_eigenvalues(c)
    assert high == pytest.approx(values[-1], rel=1e-9)
    assert low == pytest.approx(values[0], abs=1e-6 * high)
    assert low <= 0


def test_the_other_end_likewise() -> None:
    """Of S less T the highest eigenvalue is the one next to zero."""
    layer, c, values = difference(3)
    low, high = layer.extreme_eigenvalues(-c)
    assert low == pytest.approx(-values[-1], rel=1e-9)
    assert high == pytest.approx(-values[0], abs=1e-9 * -low)
