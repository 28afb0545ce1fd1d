"""Pairwise distances of samples, by rows and blocks, that are never held whole: of vectors, of gradients and curvature.

One protocol says what a distance offers. What is done with distances (facility location, k-center) is not here.
"""

from lcmat.distances.loss_curvature import LossCurvatureDistance
from lcmat.distances.matrix import Matrix
from lcmat.distances.protocol import Distance
from lcmat.distances.vectors import CosineDistance, VectorDistance, euclidean

__all__ = ["CosineDistance", "Distance", "LossCurvatureDistance", "Matrix", "VectorDistance", "euclidean"]
