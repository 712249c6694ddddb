"""Labels of rows: 0 is taken for normal, 1 is a known anomaly, -1 is unlabelled."""

import warnings

import numpy as np

from swift_hydra.data.table import listed
from swift_hydra.settings import InputError

RECODE = "recode them as 0 (normal) and 1 (anomaly)"


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
    values = _without_unlabelled(_as_numbers(y, source), source)
    n_anomalies = int(values.sum())
    if n_anomalies in (0, len(values)):
        only = "0: there is no anomaly" if n_anomalies == 0 else "1: there is no normal row"
        raise InputError(f"{source}: all {len(values)} labels are {only}, give both classes")
    if n_anomalies < least:
        raise InputError(
            f"{source}: there is 1 anomaly among {len(values)} rows: at least {least} are needed"
        )
    return values.astype(np.int64)


def _as_numbers(y, source):
    """(n,) float64 of -1, 0 and 1."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(f"{source}: y has shape {y.shape}: it must be 1-D, one label per row")
    if y.dtype.kind not in "biufOUS":
        raise InputError(f"{source}: the labels have dtype {y.dtype}: {RECODE}")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    try:
        values = y.astype(np.float64)
        if np.isin(values, (-1.0, 0.0, 1.0)).all():
            return values
    except (ValueError, TypeError):
        values = y.astype(str)
    different = np.unique(values).tolist()
    found = listed(f"{v:g}" if isinstance(v, float) else v for v in different)
    raise InputError(f"{source}: the labels are {found}: {RECODE}")


def _without_unlabelled(values, source):
    """0 in place of -1, with a warning."""
    n_unlabelled = int((values == -1).sum())
    if not n_unlabelled:
        return values
    opposite = ""
    if n_unlabelled + int((values == 1).sum()) == len(values):
        opposite = (
            " (in scikit-learn's outlier detectors -1 is the outlier: if that is meant, recode)"
        )
    message = f"{source}: {n_unlabelled} unlabelled rows (-1) are taken as normal{opposite}"
    warnings.warn(message, stacklevel=4)
    return np.maximum(values, 0.0)


def encode_labels(y):
    """0 and 1 in place of any two numbers from 0 on, in their order.

    Everything else is left to :func:`check_labels`, which names it.

    Args:
        y: (n,) array-like.

    Returns:
        (n,) labels, and the two values that were given for 0 and 1.
    """
    y = np.asarray(y)
    same = np.array([0, 1])
    try:
        labels = np.unique(y.astype(np.float64))
    except (TypeError, ValueError):
        return y, same
    if len(labels) != 2 or set(labels) == {0, 1} or labels[0] < 0:
        return y, same
    warnings.warn(
        f"the labels are {labels[0]:g} and {labels[1]:g}: {labels[1]:g} is taken as the anomaly",
        UserWarning,
        stacklevel=5,  # where fit was called
    )
    classes = labels.astype(y.dtype) if y.dtype.kind in "iuf" else labels
    return (y == labels[1]).astype(np.int64), classes
