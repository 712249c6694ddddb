"""One-class evidence about a row (M10) and its use beside the detector (M12).

# DIFF(paper): M10 and M12 are this project's additions; ``preset="paper"`` runs without them.

:class:`Evidence` turns a row into a few columns that say how unlike the training normals it is:
distances to neighbours, local density ratios, a Gaussian, a PCA residual, the C-VAE's residual, and
how much nearer known anomalies are. For training rows every column is computed without the row
itself (leave-one-out neighbours, cross-fitted models): computed in-sample they look more normal
than any new row ever will, and a detector trained on that is misled.

:class:`MergedPValue` turns several scores into one p-value against the training normals, and
:func:`known_or_unlike` combines the experts' p-value and the one-class p-value as "a known anomaly
OR unlike normals".

Shapes: n rows, d features, c = len(COLUMNS) evidence columns. All arrays are float32 or float64
numpy on the CPU.
"""

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

CHUNK = 65536  # rows of one neighbour query: bounds memory, does not change any value


class Neighbours:
    """Mean distances to the k nearest reference rows, leave-one-out for rows that are references
    themselves.
    """

    def __init__(self, reference):
        self.reference = np.ascontiguousarray(reference, dtype=np.float32)
        # Brute force on a bounded reference is one blocked matrix product: fast at every width, no
        # curse of a tree.
        self.search = NearestNeighbors(algorithm="brute").fit(self.reference)

    def query(self, X, k, own=None):
        """Sorted distances and reference numbers, (n, k') with k' = min(k, available).

        ``own`` (n,) holds each row's own reference number or -1; that reference is left out.
        """
        loo = own is not None
        most = len(self.reference) - int(loo)
        if most < 1:
            raise ValueError("leave-one-out distances need at least two reference rows")
        k = min(k, most)
        distance, index = np.empty((len(X), k)), np.empty((len(X), k), dtype=np.int64)
        for start in range(0, len(X), CHUNK):
            part = slice(start, start + CHUNK)
            near, at = self.search.kneighbors(
                np.asarray(X[part], dtype=np.float32), n_neighbors=k + int(loo)
            )
            if loo:
                self_hit = at == own[part, None]
                drop = np.where(
                    self_hit.any(1), self_hit.argmax(1), k
                )  # not its own reference: drop the farthest
                keep = np.arange(k + 1) != drop[:, None]
                near, at = near[keep].reshape(-1, k), at[keep].reshape(-1, k)
            distance[part], index[part] = near, at
        return distance, index


def effective_rank(x):
    """exp(entropy of the covariance spectrum): how many directions a set spans."""
    values = torch.linalg.svdvals(x.double() - x.double().mean(0)).square()
    share = values / values.sum().clamp(min=1e-300)
    return float(torch.exp(-(share * share.clamp(min=1e-300).log()).sum()))
