"""Which rows train and which test: pure functions of (X, y, seed).

Every method that is compared gets its rows from :func:`make_split`, so that differences are the
methods' own.

    seen    stratified, 40 % train and 60 % test
    few     as seen, with only ``n_labelled`` of the training anomalies kept
    unseen  as seen, with the anomalies of one k-means cluster in train, the other's in test

A removed anomaly is in neither part: put among the normal rows it would be a wrong label.
"""

import dataclasses
import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from swift_hydra.settings import InputError, check_choice, check_range

PROTOCOLS = ("seen", "few", "unseen")
TEST_SHARE = 0.6
CUT = 5.0  # of z-scores


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Rows of one protocol and seed.

    Attributes:
        train: int64, ascending row indices into X; at least ``least`` anomalies and one normal row.
        test: int64, ascending row indices into X, none of them in ``train``; both classes.
        protocol: one of ``PROTOCOLS``.
        seed: the seed that drew it.
    """

    train: np.ndarray
    test: np.ndarray
    protocol: str
    seed: int


def make_split(X, y, protocol, seed, n_labelled=10, max_rows=None, least=2):
    """Draw the training and test rows of a protocol.

    Args:
        X: (n, d) features; only ``unseen`` looks at the values, for the others None will do.
        y: (n,) labels, 0 or 1.
        protocol: one of ``PROTOCOLS``.
        seed: 0 to 2**32 - 1; under ``unseen`` an even seed trains on the larger cluster, an odd one
            on the smaller.
        n_labelled: training anomalies that ``few`` keeps; where there are not more than that, it
            keeps all.
        max_rows: a larger table is first cut to this many rows by a stratified draw; None keeps
            all.
        least: fewest anomalies to train on, and under ``unseen`` to test on. The benchmark takes 1,
            so that no set is left out for being hard.

    Returns:
        A :class:`Split`; the same arguments give the same rows on every platform.

    Raises:
        InputError: an unknown protocol, a setting out of range, too few rows of a class, fewer than
        ``least``
            training anomalies, or anomalies that cannot be parted in two groups (``unseen``).
    """
    check_choice("protocol", protocol, PROTOCOLS)
    check_range("seed", seed, 0, 2**32 - 1)
    check_range("n_labelled", n_labelled, 2, 10**9)
    y = np.asarray(y)
    rows = np.arange(len(y), dtype=np.int64)
    _check_strata(y)
    if max_rows is not None:
        check_range("max_rows", max_rows, 10, 10**9)
        if len(rows) > max_rows:
            # The part left over must hold a row of each class too, or scikit-learn refuses to
            # stratify.
            size = min(max_rows, len(rows) - 2)
            rows = train_test_split(rows, train_size=size, stratify=y, random_state=seed)[0]
            rows.sort()
            _check_strata(y[rows], f" after the draw of max_rows={max_rows}")
    train, test = train_test_split(rows, test_size=TEST_SHARE, stratify=y[rows], random_state=seed)
    train, test = np.sort(train), np.sort(test)
    if protocol == "few":
        found = train[y[train] == 1]
        # RandomState's stream is frozen for good, that of numpy's newer generators is not.
        kept = np.random.RandomState(seed).permutation(found)[:n_labelled]
        train = np.sort(np.concatenate([train[y[train] == 0], kept]))
    elif protocol == "unseen":
        train, test = _part_anomalies(np.asarray(X), y, train, test, seed, least)
    _check_part("train", y[train], protocol, seed, least)
    _check_part("test", y[test], protocol, seed, 1)
    return Split(train, test, protocol, int(seed))


class ClippedZScores:
    """Rows by mean and standard deviation of training rows (n, d), cut at +-5.

    What the protocol ``unseen`` and the peers take, whatever this project's detector does.
    """

    def __init__(self, train):
        train = np.asarray(train)
        self.mean = train.mean(axis=0, dtype=np.float64)
        std = np.sqrt(np.square(train - self.mean).mean(axis=0))
        step = float(np.finfo(np.float32).eps)
        rounding = 2 * step * np.abs(train).max(axis=0).astype(np.float64)
        self.scale = np.where(std <= rounding, 1.0, std)

    def __call__(self, X):
        """(n, d) float32 of rows X (n, d)."""
        return np.clip((np.asarray(X) - self.mean) / self.scale, -CUT, CUT).astype(np.float32)


def _check_strata(y, when=""):
    counts = {label: int((y == label).sum()) for label in (0, 1)}
    few = [f"{n} of class {label}" for label, n in counts.items() if n < 2]
    if few:
        raise InputError(
            f"too few rows to stratify{when}: {' and '.join(few)}, at least 2 of each are needed: "
            "give more rows"
        )


def _check_part(part, labels, protocol, seed, least):
    n_anomalies = int((labels == 1).sum())
    n_normal = int((labels == 0).sum())
    if n_anomalies < least or n_normal < 1:
        raise InputError(
            f"protocol {protocol!r} with seed {seed} leaves {n_anomalies} anomalies and {n_normal} "
            f"normal rows to {part} on: at least {least} and 1 are needed: give more rows (or a "
            "larger max_rows)"
        )


def _part_anomalies(X, y, train, test, seed, least):
    """Keep one cluster's anomalies in train and the other's in test."""
    anomalies = np.sort(np.concatenate([train[y[train] == 1], test[y[test] == 1]]))
    Z = ClippedZScores(X[train])(X[anomalies]).astype(np.float64)
    # Last bits differ between platforms' float kernels; rounded, they cannot tip a row into the
    # other cluster.
    Z = np.round(Z, 5)
    # Threads add up in an order of their own.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # Fewer than two distinct anomalies are refused below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        cluster = KMeans(n_clusters=2, n_init=10, random_state=seed).fit_predict(Z)
    counts = np.bincount(cluster, minlength=2)
    # The numbers of the clusters are arbitrary: the larger over all anomalies is the one meant by
    # "larger".
    larger = int(counts.argmax()) if counts[0] != counts[1] else int(cluster[0])
    in_train = np.isin(anomalies, train)
    seen = larger if seed % 2 == 0 else 1 - larger

    def sizes(seen):
        return int((in_train & (cluster == seen)).sum()), int((~in_train & (cluster != seen)).sum())

    if min(sizes(seen)) < 2:
        here = np.bincount(cluster[in_train], minlength=2)
        seen = int(here.argmax()) if here[0] != here[1] else larger
    n_train, n_test = sizes(seen)
    if min(n_train, n_test) < least:
        raise InputError(
            f"protocol 'unseen' is undefined for this data set (seed {seed}): k-means parts its "
            f"{len(anomalies)} anomalies into {n_train} to train and {n_test} to test on, at least "
            f"{least} each needed: use protocol 'seen' or 'few'"
        )
    drop = anomalies[np.where(in_train, cluster != seen, cluster == seen)]
    return train[~np.isin(train, drop)], test[~np.isin(test, drop)]
