"""Distances and directions of rows: nearest neighbours and the effective rank.

Shapes: n rows, d features.
"""

import numpy as np
from sklearn.neighbors import NearestNeighbors

QUERY_ROWS = 65536  # rows of one neighbour query: bounds memory, does not change any value


class Neighbours:
    """The k nearest reference rows, leave-one-out for rows that are references themselves.

    Args:
        reference: (m, d) rows, taken as float32.
    """

    def __init__(self, reference):
        self.reference = np.ascontiguousarray(reference, dtype=np.float32)
        # Brute force on a bounded reference is one blocked matrix product: fast at every width.
        self.search = NearestNeighbors(algorithm="brute").fit(self.reference)

    def query(self, X, k, own=None):
        """Sorted distances and reference numbers, (n, k') with k' = min(k, available).

        Args:
            X: (n, d) rows.
            k: neighbours wanted.
            own: (n,) each row's own reference number or -1; that reference is left out.

        Raises:
            ValueError: if nothing is left when a row is left out.
        """
        loo = own is not None
        most = len(self.reference) - int(loo)
        if most < 1:
            raise ValueError("leave-one-out distances need at least two reference rows")
        k = min(k, most)
        distance = np.empty((len(X), k))
        index = np.empty((len(X), k), dtype=np.int64)
        for start in range(0, len(X), QUERY_ROWS):
            part = slice(start, start + QUERY_ROWS)
            rows = np.asarray(X[part], dtype=np.float32)
            near, at = self.search.kneighbors(rows, n_neighbors=k + int(loo))
            if loo:
                self_hit = at == own[part, None]
                # Where a row's own reference is not among them the farthest is dropped.
                drop = np.where(self_hit.any(1), self_hit.argmax(1), k)
                keep = np.arange(k + 1) != drop[:, None]
                near = near[keep].reshape(-1, k)
                at = at[keep].reshape(-1, k)
            distance[part] = near
            index[part] = at
        return distance, index


def effective_rank(X):
    """How many directions the rows X (n, d) span: exp(entropy of their covariance spectrum)."""
    X = np.asarray(X, dtype=np.float64)
    values = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2
    share = values[values > 0] / max(values.sum(), 1e-300)
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 1.0
