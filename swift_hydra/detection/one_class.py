"""One-class scores for tables of which no anomaly is known (M12).

# DIFF(paper): additions; the paper has labels.

:class:`Far` bears hidden anomalies among its rows: few are left of a group once the farthest rows
were set aside, and those are no row's twenty neighbours. :class:`Smoother` is sharper and takes all
its rows for normal. Which one is used, says whether the rows are trusted.

Shapes: n rows, r reference rows, d features.
"""

import numpy as np
import torch

from swift_hydra.cleaning.suspects import REFERENCE
from swift_hydra.geometry import Neighbours, squared_distances

FAR = 20  # neighbours
SMOOTHED = 2000  # reference rows of the smoother: bounds its n r d
WIDTHS = np.logspace(-3, 0.3, 10)  # of the kernel, in the median squared distance
SAME = 1e-9  # squared: copies up to what cancels
BLOCK = 2048  # rows smoothed at a time: bounds memory


class Far:
    """Logarithm of the mean distance to the twenty nearest reference rows."""

    def __init__(self, reference):
        self.reference = np.asarray(reference)
        self.neighbours = Neighbours(self.reference)

    @classmethod
    def fit(cls, Z, rng):
        """From rows (n, d) and a numpy Generator that draws those that stand for a larger table."""
        return cls(Z[np.sort(rng.permutation(len(Z))[:REFERENCE])])

    def score(self, Z, others=False):
        """(n,) of rows (n, d); ``others`` leaves a row's own copies out."""
        return np.log(self.neighbours.mean_distance(Z, FAR, others, nothing=0.0) + 1e-6)

    def snapshot(self):
        """Arrays and plain values."""
        return {"reference": self.reference}


class Smoother:
    """Residual of a Nadaraya-Watson smoother: how far a row is from the mean of rows around it.

    After Melo et al., kernel contraction matching (CIKM 2026): the width of the Gaussian kernel is
    the one that reproduces the reference rows best when each is left out.
    """

    def __init__(self, reference, width):
        self.reference = np.asarray(reference)
        self.width = float(width)

    @classmethod
    def fit(cls, Z, rng):
        """Arguments are those of :meth:`Far.fit`."""
        reference = Z[np.sort(rng.permutation(len(Z))[:SMOOTHED])]
        rows = torch.from_numpy(reference).double()
        square = squared_distances(rows, rows)
        apart = square[square > SAME]
        typical = float(apart.median()) if len(apart) else 1.0
        trials = [cls(reference, typical * width) for width in WIDTHS]
        errors = [trial.residuals(reference, others=True).mean() for trial in trials]
        return trials[int(np.argmin(errors))]

    def residuals(self, Z, others=False):
        """(n,) distances of rows (n, d) to their smoothed selves."""
        reference = torch.from_numpy(self.reference).double()
        out = []
        for part in torch.from_numpy(np.asarray(Z)).double().split(BLOCK):
            square = squared_distances(part, reference)  # (B, r)
            if others:
                own = square <= SAME
                square = square.masked_fill(own & ~own.all(1, keepdim=True), torch.inf)
            weight = torch.softmax(-square / (2 * self.width), dim=1)
            out.append((part - weight @ reference).norm(dim=1))
        return torch.cat(out).numpy() if out else np.zeros(0)

    def score(self, Z, others=False):
        """Logarithm of the residuals, (n,)."""
        return np.log(self.residuals(Z, others) + 1e-6)

    def snapshot(self):
        """Arrays and plain values."""
        return {"reference": self.reference, "width": self.width}
