"""How far rows break relations among columns that nearly all training rows keep (M12).

# DIFF(paper): an addition; the paper's models see the values alone.

Shapes: n rows, d columns, k measured ones, r relations.
"""

from typing import NamedTuple

import numpy as np

from swift_hydra.data.scaler import QUANTILES as SCALES
from swift_hydra.data.scaler import ColumnScaler
from swift_hydra.geometry import VECTOR, filled, principal_axes, spread_over

KEPT = 0.05  # most spread of a relation, if columns had a spread of 1 and were independent
ROWS = 10  # training rows for each column: fewer seem to keep relations by chance
MOST_ROWS = 4096  # training rows that relations are looked for in, or `ROWS` for each column
ROUNDS = 3  # of looking again without the rows that break what was found
BREAKS = 4.0  # spreads from a relation's middle
AT_MOST = 0.2  # share of the rows that may break relations
POSITIVE = 0.99  # share of the rows where a factor has its usual sign
SHARE, DEVIATIONS = SCALES[0]  # the scaler's outer quantiles, and what lies between them
QUANTILES = (SHARE, 0.5, 1 - SHARE)
LEAST = 1e-4  # least spread of a relation, in the same unit
MOST = 1e100
STEP = 4 * np.finfo(np.float32).eps  # relative error of standardised values


class System(NamedTuple):
    """Relations of one kind: sums, or sums of logarithms."""

    logs: bool
    columns: np.ndarray  # (c,) numbers of the columns
    centre: np.ndarray  # (c,)
    scale: np.ndarray  # (c,)
    directions: np.ndarray  # (r, c) what hardly varies
    middle: np.ndarray  # (r,) its medians
    spread: np.ndarray  # (r,)

    def values(self, X):
        """What is summed, (n, c) float64 of rows X (n, k); a factor of another sign is NaN."""
        with np.errstate(all="ignore"):
            X = X[:, self.columns]
            if self.logs:
                ratio = X / self.centre
                values = np.log(np.where(ratio > 0, ratio, np.nan)) / self.scale
            else:
                values = (X - self.centre) / self.scale
        return np.clip(values, -MOST, MOST)  # what can be squared

    def broken(self, values, nearby):
        """By how many spreads rows (n, c) break the relation that they break most: (n,).

        ``nearby``: the values after a change as large as their rounding error.
        """
        off = np.abs(self._along(values, self.directions) - self.middle)
        error = self._along(np.abs(values - nearby), np.abs(self.directions))
        with np.errstate(invalid="ignore"):
            most = (off / (self.spread + error)).max(1)
        return np.where(np.isnan(most), 0.0, most)  # a factor of another sign: nothing to compare

    @staticmethod
    def _along(values, directions):
        """Rows (n, c) along directions (r, c): (n, r), each independent of the others."""
        product = filled(values, VECTOR, VECTOR) @ filled(directions.T, VECTOR, VECTOR)
        return product[: len(values), : len(directions)]


class KeptRelations:
    """By how many spreads a row breaks the relation among columns that it breaks most.

    The parts of a total, shares of a whole, a price, a number and an amount, one quantity in two
    units, two sensors of one thing: a combination of such columns hardly varies, and a row that
    breaks the relation may be usual in every value and near to its neighbours. Such combinations
    are the last principal axes of the values (sums) or of their logarithms (products). Quantiles
    say how little they vary, and axes are computed again without rows that break what was found,
    since hidden anomalies are among the rows.

    Args:
        measured: (d,) bool, the columns that take many values; others keep relations by chance.
        scaler: the fitted :class:`data.scaler.ColumnScaler` of these columns.
        systems: a list of :class:`System`.
    """

    def __init__(self, measured, scaler, systems=()):
        self.measured = np.asarray(measured)
        self.scaler = scaler
        self.systems = list(systems)

    @classmethod
    def of(cls, Z, measured, scaler):
        """Look for relations in standardised training rows Z (n, d); None if there is none.

        Args:
            Z: the rows.
            measured: see above.
            scaler: the :class:`data.scaler.ColumnScaler` of all columns.
        """
        columns = np.flatnonzero(measured)
        if len(columns) < 2 or len(Z) < ROWS * len(columns):
            return None
        own = {name: values[columns] for name, values in scaler.snapshot().items()}
        self = cls(measured, ColumnScaler.from_snapshot(own))
        most = max(MOST_ROWS, ROWS * len(columns))
        X, nearby = self._amounts(np.asarray(Z)[spread_over(len(Z), most)])
        centre = self.scaler.centre
        with np.errstate(all="ignore"):
            factors = np.flatnonzero((X / centre > 0).mean(0) >= POSITIVE)
        found = [_found(X, nearby, False, np.arange(len(columns)), centre)]
        if len(factors) > 2:  # of two, a sum says the same
            found.append(_found(X, nearby, True, factors, centre[factors]))
        self.systems = [system for system in found if system is not None]
        return self if self.systems else None

    def __call__(self, Z):
        """(n,) float64, 0 or more, of standardised rows Z (n, d)."""
        X, nearby = self._amounts(Z)
        each = [system.broken(*map(system.values, (X, nearby))) for system in self.systems]
        return np.max(each, axis=0)

    def _amounts(self, Z):
        """The measured columns in the input's unit (n, k), and after a small change."""
        Z = np.asarray(Z, dtype=np.float64)[:, self.measured]
        return (self.scaler.inverse_transform(rows) for rows in (Z, Z * (1 - STEP)))

    def snapshot(self):
        """Arrays and plain values."""
        systems = [system._asdict() for system in self.systems]
        return {"measured": self.measured, "scaler": self.scaler.snapshot(), "systems": systems}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        systems = [System(**system) for system in saved["systems"]]
        return cls(saved["measured"], ColumnScaler.from_snapshot(saved["scaler"]), systems)


def _found(X, nearby, logs, columns, centre):
    """The :class:`System` of one kind in rows X (n, k), or None.

    Args:
        X: the rows in the input's unit.
        nearby: the same after a change as large as their rounding error.
        logs: look at logarithms.
        columns: (c,) numbers of the columns.
        centre: (c,) their medians.
    """
    none = np.empty(0)
    system = System(logs, columns, centre, np.ones(len(columns)), none, none, none)
    low, high = np.nanquantile(system.values(X), (QUANTILES[0], QUANTILES[-1]), axis=0)
    varies = (high > low) & np.isfinite(high - low)
    if varies.sum() < 2:
        return None
    scale = (high - low)[varies] / DEVIATIONS
    system = system._replace(columns=columns[varies], centre=centre[varies], scale=scale)
    values, nearby = system.values(X), system.values(nearby)
    whole = np.isfinite(values).all(1)
    values, nearby = values[whole], nearby[whole]
    if len(values) < ROWS * len(scale):  # each factor has its usual sign, hardly any row has all
        return None
    kept = np.ones(len(values), dtype=bool)
    for _ in range(ROUNDS):
        rows = values[kept]
        axes = principal_axes(rows - rows.mean(0))[1]
        low, middle, high = np.quantile(values @ axes.T, QUANTILES, axis=0)
        spread = (high - low) / DEVIATIONS  # 1 along each axis of independent columns
        tight = spread < KEPT
        if not tight.any():
            return None
        spread = np.maximum(spread[tight], LEAST)
        system = system._replace(directions=axes[tight], middle=middle[tight], spread=spread)
        broken = system.broken(values, nearby)
        kept = broken <= max(BREAKS, np.quantile(broken, 1 - AT_MOST))
    return system
