"""Layouts of points in the plane, easy and hard for a greedy facility location, and their distances."""

import numpy as np
from scipy.spatial.distance import cdist


def plane(points: np.ndarray) -> np.ndarray:
    """Euclidean distances of points: symmetric, exactly 0 on the diagonal and between equal points."""
    return cdist(points, points)


def uniform(n: int, seed: int) -> np.ndarray:
    """Points all over the unit square."""
    return np.random.default_rng(seed).uniform(size=(n, 2))


def clusters(n: int, seed: int) -> np.ndarray:
    """Five tight clusters."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(5, 2))[rng.integers(0, 5, n)] + 0.01 * rng.normal(size=(n, 2))


def duplicates(n: int, seed: int) -> np.ndarray:
    """Points that come up to several times."""
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(max(1, n // 3), 2))[rng.integers(0, max(1, n // 3), n)]


def grid(n: int, seed: int) -> np.ndarray:
    """A small integer grid: duplicates, and exact ties between different points."""
    return np.random.default_rng(seed).integers(0, 4, (n, 2)).astype(np.float64)


def outlier(n: int, seed: int) -> np.ndarray:
    """One point a million times farther away than the others are from each other."""
    points = uniform(n, seed)
    points[n // 2] += 1e6
    return points


def scales(n: int, seed: int) -> np.ndarray:
    """Distances from the origin over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) * 10 ** rng.uniform(-6, 0, (n, 1))


def huge_scales(n: int, seed: int) -> np.ndarray:
    """Distances from the origin over 18 orders of magnitude; each is known to full relative precision."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) * 10 ** rng.uniform(-18, 0, (n, 1))


def same(n: int, seed: int) -> np.ndarray:
    """One point, n times: all distances 0."""
    return np.full((n, 2), 0.5)


LAYOUTS = [uniform, clusters, duplicates, grid, outlier, scales, huge_scales, same]
