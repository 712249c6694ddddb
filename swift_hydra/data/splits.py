"""Which rows train and which test: pure functions of (X, y, seed).

Every method that is compared gets its rows from :func:`make_split`, so that differences are due to
the methods.

    seen       stratified, 40 % train and 60 % test
    few        as seen, with only ``n_labelled`` of the training anomalies kept
    unseen     as seen, with the anomalies of one k-means cluster in train, the other's in test
    weak       stratified, 70 % train and 30 % test, as ADBench has it: ``labelled`` of the training
               anomalies are known, the others hide among the normal rows
    one-class  half of the normal rows train, all other rows test: no anomaly is known
    duplicated, irrelevant, flipped, local, global, cluster, dependency
               as seen, with changed rows, columns or labels: see data/angles.py

Under ``few`` and ``unseen`` a removed anomaly is in neither part: among the normal rows it would be
labelled wrongly, which only ``weak`` intends. Unlabelled rows (-1) never test, since nobody can say
whether their scores are right; they train, but are left out under ADBench's four kinds.
"""

import dataclasses
import math
import numbers
import re
import warnings
from fractions import Fraction

import numpy as np

from swift_hydra.data.angles import ANGLES, KINDS, flipped, repeated
from swift_hydra.settings import InputError, check_choice, check_range

PROTOCOLS = ("seen", "few", "unseen", "weak", "one-class", *ANGLES)
HIDING = ("weak", "one-class", "flipped")  # protocols that do not reveal all training labels
TEST_SHARE = 0.6
WEAK_TEST_SHARE = 0.3
LABELLED = "0.05"  # of the training anomalies, under "weak"
CUT = 5.0  # largest absolute z-score


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Rows of one protocol and seed.

    Attributes:
        train: int64, ascending row indices into X; at least one normal row. Under ``duplicated``
            anomalies occur more than once, in ``test`` and ``known`` too.
        test: int64, ascending row indices into X, none of them in ``train``; both classes, and no
            unlabelled row.
        known: int64, ascending row indices into X of the known anomalies, all in ``train``: its
            anomalies, under ``weak`` some of them, under ``one-class`` none. Under ``flipped`` the
            rows labelled as anomalies, rightly or wrongly.
        protocol: one of ``PROTOCOLS``.
        seed: the seed that drew it.
    """

    train: np.ndarray
    test: np.ndarray
    known: np.ndarray
    protocol: str
    seed: int


def parse_labelled(value):
    """How many training anomalies are known under the protocol ``weak``.

    Args:
        value: a share above 0 and up to 1.0 (a float, or a text with a decimal point), or a whole
            number from 0 (an int, or a text of digits): "1.0" is all of them, "1" is one.

    Returns:
        A float, the share, or an int, the number.

    Raises:
        InputError: for anything else.
    """
    text = value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        text = str(int(value))
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        text = _positional(value)
    if isinstance(text, str):
        text = text.strip()
        if re.fullmatch(r"[0-9]{1,9}", text):
            return int(text)
        if re.fullmatch(r"[01]?\.[0-9]{1,20}", text) and 0 < float(text) <= 1:
            return float(text)
    raise InputError(
        f"labelled={value!r} is not usable: give a share of the training anomalies with a decimal "
        "point, above 0 and up to 1.0, such as 0.05, or a whole number of them, such as 10 (0: "
        "none is known)"
    )


def protocol_name(protocol, labelled=LABELLED):
    """What folders, records and messages call a protocol: ``weak`` says how much is labelled.

    Args:
        protocol: one of ``PROTOCOLS``.
        labelled: see :func:`parse_labelled`; "0.050" and ".05" give the name of "0.05".

    Raises:
        InputError: for ``labelled`` that cannot be used with ``weak``.
    """
    if protocol != "weak":
        return protocol
    return f"weak-{_positional(parse_labelled(labelled))}"


def parse_protocol(name):
    """The protocol and the text of ``labelled`` in a name that :func:`protocol_name` made.

    Raises:
        InputError: for an unknown name; the message lists the known ones.
    """
    if name in PROTOCOLS and name != "weak":
        return name, LABELLED
    protocol, _, labelled = name.partition("-")
    try:
        if protocol == "weak":
            return protocol, protocol_name(protocol, labelled).partition("-")[2]
    except InputError:
        pass  # said below, with all names
    plain = [known for known in PROTOCOLS if known not in ("weak", *ANGLES)]
    known, angles = (", ".join(map(repr, names)) for names in (plain, ANGLES))
    raise InputError(
        f"protocols: {name!r} is unknown: choose of {known}, and 'weak-' with what is labelled: a "
        "share above 0 and up to 1.0 ('weak-0.05') or a whole number ('weak-10', 'weak-0'); or of "
        f"{angles}"
    )


def make_split(X, y, protocol, seed, n_labelled=10, max_rows=None, least=2, labelled=LABELLED):
    """Draw the training and test rows of a protocol.

    Args:
        X: (n, d) features, used by ``unseen`` only; the other protocols accept None.
        y: (n,) labels: 0, 1, or -1 for unlabelled rows, which train (but not under ADBench's four
            kinds).
        protocol: one of ``PROTOCOLS``.
        seed: 0 to 2**32 - 1; under ``unseen`` an even seed trains on the larger cluster, an odd one
            on the smaller.
        n_labelled: how many training anomalies ``few`` keeps; if there are fewer it keeps all.
        max_rows: a larger table is first cut to this many rows by a stratified draw; None keeps
            all.
        least: fewest known anomalies to train on, and under ``unseen`` to test on; under ``weak``
            at most the number that ``labelled`` asks for. The benchmark takes 1, so that no set is
            left out for being hard.
        labelled: how many of the training anomalies ``weak`` knows, see :func:`parse_labelled`; a
            share is rounded up.

    Returns:
        A :class:`Split`; the same arguments give the same rows on every platform.

    Raises:
        InputError: an unknown protocol, a setting out of range, too few rows of a class, fewer than
            ``least`` known anomalies, or anomalies that cannot be divided into two groups
            (``unseen``).
    """
    check_choice("protocol", protocol, PROTOCOLS)
    check_range("seed", seed, 0, 2**32 - 1)
    check_range("n_labelled", n_labelled, 2, 10**9)
    labelled = parse_labelled(labelled)
    y = np.asarray(y)
    rows, unlabelled = _drawn_rows(y, protocol, max_rows, seed)
    if protocol == "one-class":
        train, test = _half_of_normals(y, rows, seed)
        least = 0
    else:
        size = WEAK_TEST_SHARE if protocol == "weak" else TEST_SHARE
        train, test = _stratified(y, rows, size, seed)
    if protocol == "few":
        kept = _some(train[y[train] == 1], n_labelled, seed)
        train = np.sort(np.concatenate([train[y[train] == 0], kept]))
    elif protocol == "unseen":
        train, test = _part_anomalies(np.asarray(X), y, train, test, seed, least)
    known = train[y[train] == 1]
    if protocol == "weak":
        asked = _number_of(labelled, len(known))
        known = np.sort(_some(known, asked, seed))
        least = min(least, asked)
    elif protocol == "flipped":
        known = flipped(y, train, seed)
    elif protocol == "duplicated":
        train, test, known = (repeated(y, part) for part in (train, test, known))
    where = (f"protocol {protocol!r} with seed {seed}", max_rows is not None and len(y) > max_rows)
    _check_part("train", len(known), int((y[train] == 0).sum()), least, *where)
    _check_part("test", *(int((y[test] == label).sum()) for label in (1, 0)), 1, *where)
    if protocol not in KINDS:  # an unlabelled row cannot be replaced by one of its class
        train = np.sort(np.concatenate([train, unlabelled]))
    return Split(train, test, known, protocol, int(seed))


class ClippedZScores:
    """Standardises rows by mean and standard deviation of training rows (n, d), clipped at +-5.

    The protocol ``unseen`` and the peers use it; this project's detector has a scaler of its own.
    """

    def __init__(self, train):
        train = np.asarray(train)
        self.mean = train.mean(axis=0, dtype=np.float64)
        std = np.sqrt(np.square(train - self.mean).mean(axis=0))
        step = float(np.finfo(np.result_type(train, np.float16)).eps)
        rounding = 2 * step * np.abs(train).max(axis=0).astype(np.float64)
        self.scale = np.where(std <= rounding, 1.0, std)

    def __call__(self, X):
        """Standardised rows, (n, d) float32, of rows X (n, d)."""
        return np.clip((np.asarray(X) - self.mean) / self.scale, -CUT, CUT).astype(np.float32)


def _positional(number):
    """A number's shortest text without an exponent: 1.0 keeps its point, 1 has none."""
    if isinstance(number, numbers.Integral):
        return str(number)
    return np.format_float_positional(number, trim="0")


def _number_of(labelled, n):
    """How many of n training anomalies ``labelled`` asks for."""
    if isinstance(labelled, int):
        return labelled
    # Exact decimal arithmetic: in floats, .07 of 100 would be rounded up to 8.
    return math.ceil(Fraction(_positional(labelled)) * n)


def _some(rows, n, seed):
    """At most n of ascending rows, drawn at random; a smaller n draws a subset of these."""
    # RandomState's stream is guaranteed to stay the same, that of numpy's newer generators is not.
    return np.random.RandomState(seed).permutation(rows)[:n]


def check_max_rows(max_rows):
    """Refuse an unusable number of rows. Raises :class:`settings.InputError`."""
    check_range("max_rows", max_rows, 10, 10**9)


def _drawn_rows(y, protocol, max_rows, seed):
    """The labelled rows to split, (n',), and the unlabelled ones, (n'',), both ascending."""
    from sklearn.model_selection import train_test_split  # here: protocol names need no sklearn

    rows = np.flatnonzero(y != -1).astype(np.int64)
    unlabelled = np.flatnonzero(y == -1).astype(np.int64)
    if protocol != "one-class" or max_rows is not None:
        _check_strata(y)
    if max_rows is not None:
        check_max_rows(max_rows)
        if len(y) > max_rows:
            unlabelled = np.sort(_some(unlabelled, len(unlabelled) * max_rows // len(y), seed))
            # The part left over must hold a row of each class too, or scikit-learn refuses to
            # stratify.
            size = max(2, min(max_rows - len(unlabelled), len(rows) - 2))
            rows = train_test_split(rows, train_size=size, stratify=y[rows], random_state=seed)[0]
            rows.sort()
            _check_strata(y[rows], f" after the draw of max_rows={max_rows}")
    return rows, unlabelled


def _stratified(y, rows, test_share, seed):
    """(train, test), each ascending, with equal shares of anomalies."""
    from sklearn.model_selection import train_test_split

    if len(rows) < 5:  # of 4, one would be left to train on, and scikit-learn refuses
        raise InputError(
            f"too few rows to stratify: {len(rows)} are labelled, at least 5 are needed: give more "
            "rows"
        )
    parts = train_test_split(rows, test_size=test_share, stratify=y[rows], random_state=seed)
    return tuple(np.sort(part) for part in parts)


def _half_of_normals(y, rows, seed):
    """(train, test): half of the normal rows, and all other rows."""
    normals = rows[y[rows] == 0]
    train = np.sort(_some(normals, len(normals) // 2, seed))
    return train, rows[~np.isin(rows, train)]


def _check_strata(y, when=""):
    counts = {label: int((y == label).sum()) for label in (0, 1)}
    few = [f"{n} of class {label}" for label, n in counts.items() if n < 2]
    if few:
        raise InputError(
            f"too few rows to stratify{when}: {' and '.join(few)}, at least 2 of each are needed: "
            f"give {'a larger max_rows, or ' if when else ''}more rows"
        )


def _check_part(part, n_anomalies, n_normals, least, split, cut):
    """Refuse a side of a split with too few rows of a class."""
    if n_anomalies < least or not n_normals:
        left = f"{_counted(n_anomalies, 'anomaly', 'anomalies')} and "
        left += _counted(n_normals, "normal row", "normal rows")
        more = "more rows, or a larger max_rows" if cut else "more rows, or another protocol"
        raise InputError(
            f"{split} leaves {left} to {part} on: at least {least} and 1 are needed: give {more}"
        )


def _counted(n, one, more):
    return f"{n} {one if n == 1 else more}"


def _part_anomalies(X, y, train, test, seed, least):
    """Keep one cluster's anomalies in train and the other's in test."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    anomalies = np.sort(np.concatenate([train[y[train] == 1], test[y[test] == 1]]))
    Z = ClippedZScores(X[train])(X[anomalies]).astype(np.float64)
    # Platforms' float kernels differ in the last bits; after rounding these cannot move a row to
    # the other cluster.
    Z = np.round(Z, 5)
    # The order in which several threads add up varies.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # Fewer than two distinct anomalies are refused below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        cluster = KMeans(n_clusters=2, n_init=10, random_state=seed).fit_predict(Z)
    counts = np.bincount(cluster, minlength=2)
    # The clusters' numbers are arbitrary: "larger" means the one with more of all anomalies.
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
