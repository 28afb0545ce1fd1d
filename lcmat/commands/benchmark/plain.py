"""What is measured against: the plain formulation of LCMat-S, as released code of this kind writes it."""

import numpy as np


def select(
    features: np.ndarray, logits: np.ndarray, labels: np.ndarray, budget: int, rho: float = 0.1, K: int = 100
) -> list[int]:
    """LCMat-S by naive greedy over a full similarity matrix."""
    return greedy(similarities(features, logits, labels, rho, K), budget)


def similarities(
    features: np.ndarray, logits: np.ndarray, labels: np.ndarray, rho: float = 0.1, K: int = 100
) -> np.ndarray:
    """Return max D − D, (n, n) in the features' type, the L1 distance by broadcasting to n × n × K."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    p = exponentials / exponentials.sum(1, keepdims=True)
    h = np.concatenate([features, np.ones((len(features), 1), features.dtype)], 1)
    gradients = ((p - np.eye(p.shape[1], dtype=p.dtype)[labels])[:, :, None] * h[:, None]).reshape(len(h), -1)
    hessians = ((p * (1 - p))[:, :, None] * (h**2)[:, None]).reshape(len(h), -1)
    hessians = hessians[:, np.argsort(-hessians.var(0), kind="stable")[:K]]
    squares = (gradients**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gradients @ gradients.T, 0))
    distances += rho / 2 * np.abs(hessians[:, None] - hessians[None]).sum(2)
    return distances.max() - distances


def greedy(similarity: np.ndarray, budget: int) -> list[int]:
    """Take the largest of Σ_i max(0, s_ij − max_{k∈S} s_ik) over all j that are left, from their part of the matrix."""
    everyone = np.arange(len(similarity))
    covered, chosen = np.zeros(len(similarity), similarity.dtype), []
    for _ in range(budget):
        left = np.setdiff1d(everyone, chosen)
        gains = np.maximum(0, similarity[np.ix_(everyone, left)] - covered[:, None]).sum(0)
        chosen.append(int(left[gains.argmax()]))
        covered = np.maximum(covered, similarity[chosen[-1]])
    return chosen
