"""A file becomes a checked :class:`Dataset` (M1); the splits and the scaler of ``splits.py`` are
offered here as well.

    python dataloader.py                                   # a summary of the embedded set
    python dataloader.py 18_Ionosphere                     # a summary of a downloaded ADBench set
    python dataloader.py my.csv --label-column fraud       # ... of your own table
    python dataloader.py --download Ionosphere,Pima        # fetch ADBench sets
    python dataloader.py --download all --source URL       # fetch all of them from a mirror: URL/<file>.npz

Every mistake in a file raises :class:`config.InputError`, one line with the file, the column or
key, the value found and what to do about it.
"""

import warnings

import numpy as np

from swift_hydra.data.table import listed
from swift_hydra.settings import InputError


def check_labels(y, source="y", least=2):
    """Check labels and cast them to int64.

    Args:
        y: (n,) or (n, 1) array-like of 0 (normal) and 1 (anomaly); -1 (unlabelled) counts as 0,
            with a warning.
        source: the file, or what the messages shall call the labels.
        least: anomalies needed. A table needs two, one for each side of a split; a training part
            can have one.

    Returns:
        (n,) int64.

    Raises:
        InputError: not 1-D, other values than 0 and 1, one class only, fewer than ``least``
        anomalies.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(f"{source}: y has shape {y.shape}: it must be 1-D, one label per row")
    if y.dtype.kind not in "biufOUS":
        raise InputError(
            f"{source}: the labels have dtype {y.dtype}: recode them as 0 (normal) and 1 (anomaly)"
        )
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    try:
        values = y.astype(np.float64)
        wrong = not np.isin(values, (-1.0, 0.0, 1.0)).all()
    except (ValueError, TypeError):
        values, wrong = y.astype(str), True
    if wrong:
        found = listed(f"{v:g}" if isinstance(v, float) else v for v in np.unique(values).tolist())
        raise InputError(
            f"{source}: the labels are {found}: recode them as 0 (normal) and 1 (anomaly)"
        )
    n_unlabelled = int((values == -1).sum())
    if n_unlabelled:
        only = n_unlabelled + int((values == 1).sum()) == len(values)
        opposite = (
            " (in scikit-learn's outlier detectors -1 is the outlier: if that is meant, recode)"
            if only
            else ""
        )
        warnings.warn(
            f"{source}: {n_unlabelled} unlabelled rows (-1) are taken as normal{opposite}",
            stacklevel=2,
        )
        values = np.maximum(values, 0.0)
    n_anomalies = int(values.sum())
    if n_anomalies in (0, len(values)):
        only = "0: there is no anomaly" if n_anomalies == 0 else "1: there is no normal row"
        raise InputError(f"{source}: all {len(values)} labels are {only}, give both classes")
    if n_anomalies < least:
        raise InputError(
            f"{source}: there is 1 anomaly among {len(values)} rows: at least {least} are needed"
        )
    return values.astype(np.int64)


def encode_labels(y):
    """0 and 1 in place of any two numbers from 0 on, in their order, and the two numbers.

    Everything else is left to :func:`dataloader.check_labels`, which names it.
    """
    y = np.asarray(y)
    try:
        labels = np.unique(y.astype(np.float64))
    except (TypeError, ValueError):
        return y, np.array([0, 1])
    if len(labels) != 2 or set(labels) == {0, 1} or labels[0] < 0:
        return y, np.array([0, 1])
    warnings.warn(
        f"the labels are {labels[0]:g} and {labels[1]:g}: {labels[1]:g} is taken as the anomaly",
        UserWarning,
        stacklevel=3,
    )
    return (y == labels[1]).astype(np.int64), labels.astype(
        y.dtype
    ) if y.dtype.kind in "iuf" else labels
