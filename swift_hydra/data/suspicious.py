"""What about a table's columns deserves a word before anything is learned from them.

Nothing here changes a value: a placeholder is taken as the number that it is, bent as every other
(:class:`data.columns.ColumnScaler`). But a column that counts the rows, or whose 999 means "not
known", is rarely meant.

Shapes: n rows, d columns.
"""

import numpy as np

from swift_hydra.data.columns import ColumnScaler
from swift_hydra.data.table import listed

FAR = 30.0  # scales from the median: outside of all that a column usually holds
ABSURD = 1000.0  # the same, beyond what any heavy tail holds
FEW = 0.02  # share of the rows
ALMOST = 0.995  # share of one value that leaves little to learn
EPOCHS = [(1e9 * unit, 2.2e9 * unit) for unit in (1, 1e3, 1e6, 1e9)]  # 2001 to 2039
DIGITS = 100  # steps of float32 in a column's scale: fewer are no measurement


def notes(table):
    """One text for every kind of suspicious column of a :class:`data.table.Table`.

    Its rows are in the order that they were given in; columns of texts are passed over.
    """
    found = {}
    X = table.X
    if len(X) < 10 or X.dtype.kind not in "biuf":
        return []
    scaler = ColumnScaler()
    for j, name in enumerate(table.names()):
        if j in table.texts:
            continue
        column = X[:, j]
        values = column[~np.isnan(column)] if column.dtype.kind == "f" else column
        if len(values) < 10 or not np.isfinite(values).all():
            continue
        for kind, detail in _kinds(values, scaler):
            found.setdefault(kind, []).append(f"{name!r}{detail}")
    return [f"column {listed(columns)}: {TEXTS[kind]}" for kind, columns in found.items()]


TEXTS = {
    "counts": "counts the rows: it says where a row stands, not what it is; --drop-columns leaves "
    "it out",
    "id": "holds another whole number in every row, like an id: --drop-columns leaves it out",
    "epoch": "looks like times since 1970: the past rows lie all on one side of any new one; "
    "--drop-columns leaves it out",
    "placeholder": "one value far from all others, again and again: if it stands for 'not known', "
    "leave these cells empty and give --impute median",
    "few": "a few rows are far from all others: they do not move the rest, but look at them",
    "almost": "one value nearly everywhere: the others are too few to learn from",
    "digits": "float32 holds too few digits of it: give float64",
}


def _kinds(values, scaler):
    """Pairs of a kind and its detail for a column's values (n,)."""
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        return
    whole = values.dtype.kind in "iub" or (values == np.rint(values)).all()
    steps = np.diff(values.astype(np.float64))
    epoch = any(distinct[0] >= low and distinct[-1] <= high for low, high in EPOCHS)
    if whole and (steps == steps[0]).all() and steps[0] != 0:
        yield "counts", ""
    elif epoch and len(distinct) > n / 2:
        yield "epoch", ""
    elif whole and len(distinct) == n and n > 50 and distinct[-1] - distinct[0] < 4 * n:
        yield "id", ""
    centre, scale = (part[0] for part in scaler.fit(values[:, None]).snapshot().values())
    away = np.abs(distinct.astype(np.float64) - centre) / scale
    far = away > FAR
    spread = counts.max() < 0.9 * n  # otherwise another value is rare, and no more than that
    if spread and far.any() and counts[far].sum() <= FEW * n:
        most = np.argmax(np.where(far, counts, 0))
        if counts[most] >= max(3, counts[far].sum() / 2):
            yield "placeholder", f" ({distinct[most]:g} in {counts[most]} rows)"
        elif away.max() > ABSURD:
            worst = distinct[np.argmax(away)]
            yield "few", f" ({worst:g}; {counts[away > ABSURD].sum()} rows in all)"
    if counts.max() >= ALMOST * n:
        yield "almost", f" ({distinct[counts.argmax()]:g})"
    if values.dtype == np.float32 and abs(centre) * np.finfo(np.float32).eps * DIGITS > scale:
        yield "digits", ""
