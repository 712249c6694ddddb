"""Two further angles of ADBench as protocols: kinds of anomalies, and faults of tables.

After the description of Han, Hu, Huang, Jiang and Zhao, "ADBench: Anomaly Detection Benchmark"
(NeurIPS 2022, section 3.3 and its appendix). All of them split as ``seen`` does, 40 % train, so
that a difference to ``seen`` is the change's own; there, 70 % train.

    local       normal rows from a Gaussian mixture fitted to the set's normals; anomalies from the
                same mixture with its covariances times 5
    cluster     ... with its means times 5
    global      ... and anomalies uniform between 1.1 times the smallest and the largest value of
                every column of the normals
    dependency  normal rows with their own dependence; anomalies with the same columns, drawn
                independently
    duplicated  every anomaly, of training and of test, is there three times
    irrelevant  half as many columns again, uniform in the range of a column drawn at random
    flipped     10 % of the training labels are the other one

A kind makes all rows anew, normal ones too, as there: where real rows met made ones, the rounding
of a column would tell them apart. Labels stay, so a made row stands in the place of a real one of
its class. Rows of -1 have no place in such a set and are left out.

Where this differs from ADBench: there the dependence of ``dependency`` is a vine copula fitted to
the normals; here it is the real rows' own, every value moved by the kernel of its column's density
estimate, from which the anomalies are drawn too, so that the columns alone tell nothing. A mixture
gets no component that has fewer than five rows per column, is fitted to 5,000 rows at most, and has
as many components as lower the criterion without a rise before; there, as many of one to nine as
have the lowest. There, the limits of ``global`` are those of made normals, the copies of
``duplicated`` are drawn with replacement, and irrelevant columns are up to half of all columns,
here a third. Means and limits are scaled about 0 of the columns as they are given, as there:
columns that were centred before make ``cluster`` harder.

Shapes: n rows, d columns.
"""

import math
import warnings

import numpy as np

from swift_hydra.seeds import stage_rng, stage_seed

KINDS = ("local", "global", "cluster", "dependency")
FAULTS = ("duplicated", "irrelevant", "flipped")
ANGLES = (*KINDS, *FAULTS)
LOCAL_SCALE = 5.0  # ADBench's alpha, of covariances
CLUSTER_SCALE = 5.0  # of means
GLOBAL_SCALE = 1.1  # of smallest and largest values
COPIES = 3  # of an anomaly under "duplicated"
IRRELEVANT = 0.5  # added columns per column
FLIPPED = 0.1  # of the training labels
MOST_COMPONENTS = 9
ROWS_PER_COLUMN = 5  # that a component of the mixture needs at least
FITTED_ROWS = 5000  # of a larger table's normals say as much about the mixture


def repeated(y, rows):
    """Row indices with every anomaly there ``COPIES`` times, ascending.

    Args:
        y: (n,) labels.
        rows: ascending row indices.
    """
    return np.repeat(rows, np.where(y[rows] == 1, COPIES, 1))


def flipped(y, train, seed):
    """What is told as an anomaly once ``FLIPPED`` of the training labels are the other one.

    Args:
        y: (n,) labels, 0 or 1 on the training rows.
        train: ascending row indices.
        seed: of the draw.

    Returns:
        Ascending row indices, a part of ``train``.
    """
    told = y[train] == 1
    rng = stage_rng(seed, "angles/flipped")
    wrong = rng.permutation(len(train))[: round(FLIPPED * len(train))]
    told[wrong] = ~told[wrong]
    return train[told]


def irrelevant(X, seed, numbers=None):
    """Columns that say nothing about a row.

    Args:
        X: (n, d) rows; NaN is passed over.
        seed: of the draw.
        numbers: the columns whose ranges may be taken, all of them where None; without any the
            range is 0 to 1.

    Returns:
        (n, d'') array, d'' half of d rounded up, of X's type where that is floating.
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
    """A set of one kind of anomalies in the place of a real one.

    Args:
        X: (n, d) finite rows.
        y: (n,) labels, 0 or 1; normals are learned from, for anomalies their number counts alone.
        kind: one of ``KINDS``.
        seed: of the draws.

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
    """Rows whose columns depend on each other as the normals' do, and rows whose columns do not.

    The columns of either are draws from Gaussian kernel density estimates, Scott's rule.
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
        Z = Z[np.sort(rng.permutation(len(Z))[:FITTED_ROWS])]
    with warnings.catch_warnings(), threadpool_limits(limits=1):  # threads add up in another order
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture = _fitted(Z, stage_seed(seed, f"angles/{kind}/mixture"))
        mixture.set_params(random_state=stage_seed(seed, f"angles/{kind}/rows"))
        rows, component = mixture.sample(sum(counts))
    # By component as they come, so shuffled first.
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
    """The mixture with as many components as lower the Bayesian information criterion."""
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
