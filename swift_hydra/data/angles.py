"""Two further angles of ADBench as protocols: kinds of anomalies, and faults of tables.

They follow the description of Han, Hu, Huang, Jiang and Zhao, "ADBench: Anomaly Detection
Benchmark" (NeurIPS 2022, section 3.3 and its appendix). All of them use the split of ``seen``
(40 % train), so that a difference from ``seen`` is due to the change alone; ADBench trains on 70 %.

    local       normal rows from a Gaussian mixture fitted to the set's normals; anomalies from the
                same mixture with its covariances times 5
    cluster     the same normal rows; anomalies from the mixture with its means times 5
    global      the same normal rows; anomalies uniform between 1.1 times the smallest and 1.1 times
                the largest value of every column of the normals
    dependency  normal rows that keep the dependence between columns; anomalies with the same
                distribution in every column, but the columns drawn independently
    duplicated  every anomaly, of training and of test, occurs three times
    irrelevant  half as many columns again, uniform in the range of a column drawn at random
    flipped     10 % of the training labels are inverted

The first four, the kinds, replace all rows, normal ones too, by synthetic ones, as ADBench does:
the rounding of a column would tell synthetic rows from real ones. The labels stay, and every row is
replaced by a synthetic row of its class. Unlabelled rows (-1) are left out.

Differences from ADBench: its ``dependency`` models the dependence by a vine copula fitted to the
normals. Here the normal rows are the real ones with noise from the Gaussian kernel density
estimates of their columns, and the anomalies are drawn from the same estimates, so that no single
column tells the classes apart. A mixture here has at most one component per five rows and column
and is fitted to at most 5,000 rows; components are added until the Bayesian information criterion
(BIC) no longer falls, where ADBench takes the number from one to nine with the lowest BIC. In
ADBench the limits of ``global`` are those of synthetic normals, the copies of ``duplicated`` are
drawn with replacement, and irrelevant columns are up to half of all columns, here a third. As in
ADBench, means and limits are multiplied as they are, not relative to a centre: columns that were
centred before make ``cluster`` harder.

Shapes: n rows, d columns.
"""

import math
import warnings

import numpy as np

from swift_hydra.seeds import sample_of, stage_rng, stage_seed

KINDS = ("local", "global", "cluster", "dependency")
FAULTS = ("duplicated", "irrelevant", "flipped")
ANGLES = (*KINDS, *FAULTS)
LOCAL_SCALE = 5.0  # ADBench's alpha, a factor of covariances
CLUSTER_SCALE = 5.0  # factor of means
GLOBAL_SCALE = 1.1  # factor of smallest and largest values
COPIES = 3  # of an anomaly under "duplicated"
IRRELEVANT = 0.5  # added columns per column
FLIPPED = 0.1  # of the training labels
MOST_COMPONENTS = 9
ROWS_PER_COLUMN = 5  # for each component of the mixture
FITTED_ROWS = 5000  # enough of a larger table's normals to fit the mixture


def repeated(y, rows):
    """Row indices in which every anomaly occurs ``COPIES`` times, ascending.

    Args:
        y: (n,) labels.
        rows: ascending row indices.
    """
    return np.repeat(rows, np.where(y[rows] == 1, COPIES, 1))


def flipped(y, train, seed):
    """The training rows labelled as anomalies after a share ``FLIPPED`` of labels is inverted.

    Args:
        y: (n,) labels, 0 or 1 on the training rows.
        train: ascending row indices.
        seed: seed of the draw.

    Returns:
        Ascending row indices, a part of ``train``.
    """
    told = y[train] == 1
    rng = stage_rng(seed, "angles/flipped")
    wrong = rng.permutation(len(train))[: round(FLIPPED * len(train))]
    told[wrong] = ~told[wrong]
    return train[told]


def irrelevant(X, seed, numbers=None):
    """Columns of noise, unrelated to the rows.

    Args:
        X: (n, d) rows; NaN is ignored.
        seed: seed of the draw.
        numbers: the columns whose ranges may be taken; None means all. If it is empty the range is
            0 to 1.

    Returns:
        (n, d'') array, where d'' is half of d rounded up; of X's type if that is floating, else
        float64.
    """
    rng = stage_rng(seed, "angles/irrelevant")
    numbers = np.arange(X.shape[1]) if numbers is None else np.asarray(numbers, dtype=np.int64)
    n_added = math.ceil(IRRELEVANT * X.shape[1])
    low, high = np.zeros(n_added), np.ones(n_added)
    if len(numbers):
        chosen = X[:, rng.choice(numbers, n_added)].astype(np.float64)
        low, high = np.nanmin(chosen, axis=0), np.nanmax(chosen, axis=0)
    added = rng.uniform(low, high, size=(len(X), n_added))
    return added.astype(X.dtype if X.dtype.kind == "f" else np.float64)


def made_rows(X, y, kind, seed):
    """A synthetic set with one kind of anomalies, in place of a real one.

    Args:
        X: (n, d) finite rows.
        y: (n,) labels, 0 or 1. The normals are modelled; of the anomalies only the number is used.
        kind: one of ``KINDS``.
        seed: seed of the draws.

    Returns:
        (n, d) float64; row i is of class y[i].
    """
    normals = np.asarray(X[y == 0], dtype=np.float64)
    rng = stage_rng(seed, f"angles/{kind}")
    made = np.empty(X.shape)
    counts = [int((y == label).sum()) for label in (0, 1)]
    if kind == "dependency":
        parts = _with_and_without_dependence(normals, counts, rng)
    else:
        parts = _of_mixture(normals, counts, kind, seed, rng)
    for label, part in enumerate(parts):
        made[y == label] = part
    return made


def _with_and_without_dependence(normals, counts, rng):
    """Rows whose columns depend on each other as the normals' do, and rows with independent ones.

    In both, every column is a draw from its Gaussian kernel density estimate, whose bandwidth is
    n ** -0.2 standard deviations (Scott's rule).
    """
    n, d = normals.shape
    width = normals.std(axis=0) * n**-0.2
    independent = normals[rng.integers(0, n, size=(counts[1], d)), np.arange(d)]
    return [part + width * rng.standard_normal(part.shape) for part in (normals, independent)]


def _of_mixture(normals, counts, kind, seed, rng):
    """Normal rows of a Gaussian mixture, and anomalies of one kind."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    centre = normals.mean(axis=0)
    scale = normals.std(axis=0)
    Z = (normals - centre) / np.where(scale > 0, scale, 1.0)
    if len(Z) > FITTED_ROWS:
        Z = Z[sample_of(len(Z), FITTED_ROWS, rng)]
    with warnings.catch_warnings(), threadpool_limits(limits=1):  # more would change rounding
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = _fitted(Z, stage_seed(seed, f"angles/{kind}/mixture"))
        mixture.set_params(random_state=stage_seed(seed, f"angles/{kind}/rows"))
        rows, component = mixture.sample(sum(counts))
    # sample() returns the rows sorted by component.
    order = rng.permutation(len(rows))
    means = centre + scale * mixture.means_[component[order]]
    rows = centre + scale * rows[order]
    made, rows, means = rows[: counts[0]], rows[counts[0] :], means[counts[0] :]
    if kind == "local":
        return made, means + LOCAL_SCALE**0.5 * (rows - means)
    if kind == "cluster":
        return made, rows + (CLUSTER_SCALE - 1) * means
    limits = GLOBAL_SCALE * normals.min(axis=0), GLOBAL_SCALE * normals.max(axis=0)
    return made, rng.uniform(*limits, size=rows.shape)


def _fitted(Z, seed):
    """The mixture to which one more component would not lower the BIC."""
    from sklearn.mixture import GaussianMixture

    n, d = Z.shape
    best, lowest = None, math.inf
    for k in range(1, min(MOST_COMPONENTS, max(1, n // (ROWS_PER_COLUMN * d))) + 1):
        mixture = GaussianMixture(k, random_state=seed).fit(Z)
        criterion = mixture.bic(Z)
        if criterion >= lowest:
            break
        best, lowest = mixture, criterion
    return best
