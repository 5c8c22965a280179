"""KNN: classifies a vector by the majority of its k nearest neighbours in a training set (paper Table 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microservices.errors import ServiceError
from microservices.records import Record, RecordService
from microservices.service import Accelerator
from microservices.state import State


def synthetic_clusters(seed: int = 1, classes: int = 6, points: int = 600,
                       features: int = 8) -> tuple[list[list[float]], list[str]]:
    """Return `points` vectors in Gaussian clusters of deviation 1, and their labels.

    The clusters' centres are drawn from a cube of side 10.
    """
    draw = np.random.default_rng(seed)
    centres = draw.uniform(0.0, 10.0, (classes, features))
    labels = np.arange(points) % classes
    return (centres[labels] + draw.standard_normal((points, features))).tolist(), [f"class{n}" for n in labels]


class Knn(RecordService):
    """Adds the label of the record's values.

    Distances are Euclidean; of equally near points the earlier in the training set counts as nearer, and of equally
    frequent labels the one first by name wins. The training set is read-only: `points` and their `labels`, or
    synthetic clusters.
    """

    name = "knn"
    memory_mb = 64
    accelerators = frozenset({Accelerator.FPU})

    def __init__(self, points: Sequence[Sequence[float]] | None = None, labels: Sequence[str] | None = None,
                 k: int = 5) -> None:
        if points is None or labels is None:
            points, labels = synthetic_clusters()
        try:
            self._points = np.array(points, dtype=np.float64)
        except ValueError as error:
            raise ServiceError(f"training points: {error}") from error
        if self._points.ndim != 2 or len(self._points) != len(labels) or not np.isfinite(self._points).all():
            raise ServiceError(f"training set of {len(points)} points and {len(labels)} labels; it is as many finite "
                               "vectors of one length as labels")
        if not 1 <= k <= len(labels):
            raise ServiceError(f"k = {k}; the limits are 1 and the {len(labels)} points")
        self.k = k
        self._names = sorted(set(labels))
        self._labels = np.array([self._names.index(label) for label in labels])

    @property
    def features(self) -> int:
        return int(self._points.shape[1])

    def answer(self, record: Record, state: State, now_s: float) -> str:
        if len(record.values) != self.features:
            raise ServiceError(f"vector of {len(record.values)} values; the training set has {self.features}")
        offsets = self._points - record.values
        distances = np.einsum("ij,ij->i", offsets, offsets)
        k = self.k
        if k < len(distances):
            order = distances.argpartition(k)
            near = order[:k]
            limit = distances[near].max()
            if distances[order[k]] == limit:
                # More points than there is room for stand at the k-th distance: the first of the set among them count.
                near = (distances <= limit).nonzero()[0]
                near = near[distances[near].argsort(kind="stable")][:k]
            votes = self._labels[near]
        else:
            votes = self._labels
        return self._names[int(np.bincount(votes).argmax())]
