"""What becomes of columns on their way to the networks, learned from training rows only (M1).

:class:`Preparation` fills gaps and encodes texts, :class:`Standardizer` brings every column to one
scale. Gaps and texts are refused unless asked for: a filled gap and a number in place of a text are
assumptions about the table.

Shapes: n rows, d columns of the table, d' prepared ones.
"""

from dataclasses import dataclass

import numpy as np

from swift_hydra.data.table import check_features, listed, place
from swift_hydra.settings import InputError, check_choice, setting

IMPUTE = ("refuse", "median")
CATEGORICAL = ("refuse", "onehot", "ordinal")
MOST_TEXTS = 255  # different texts in a column: more of them name the rows rather than group them
CLIP = 5.0  # bound of standardised values, in standard deviations
BLOCK_ROWS = 65_536  # rows in float64 at once: all of a large table take over a gigabyte


@dataclass(eq=False, repr=False, kw_only=True)
class ColumnSettings:
    """What happens to gaps and texts; see :class:`Preparation`."""

    impute: str = setting(
        "refuse", "missing values: refuse, or the training rows' median", choices=IMPUTE
    )
    categorical: str = setting(
        "refuse", "text columns: refuse, onehot or ordinal", choices=CATEGORICAL
    )


class Preparation:
    """Fills gaps and encodes text columns.

    Args:
        impute: "refuse", or "median": the training rows' median, of a text column its most frequent
            text.
        categorical: "refuse"; "onehot": a column of 0 and 1 for every text of the training rows (a
            new text is 0 in all of them); "ordinal": the text's place in alphabetical order (a new
            text is -1).

    Attributes after ``fit``, d input columns, d' prepared ones:
        columns: d names, or None.
        groups: (d',) which input column a prepared one came from.
        names: d' names, ``column=text`` for one-hot columns.
    """

    def __init__(self, impute="refuse", categorical="refuse"):
        check_choice("impute", impute, IMPUTE)
        check_choice("categorical", categorical, CATEGORICAL)
        self.impute = impute
        self.categorical = categorical

    def fit(self, table):
        """Learn fills and texts from the training rows, a :class:`data.table.Table`.

        Raises:
            InputError: a text column where they are refused or with too many texts, a column
                without any value.
        """
        self.columns = table.columns
        self.d = table.X.shape[1]
        if table.texts and self.categorical == "refuse":
            self._refuse_text(table)
        self.texts = {j: self._known_texts(table, j) for j in table.texts}
        self.fill = None
        # What is no real number is refused by transform.
        if self.impute == "median" and table.X.dtype.kind in "biuf":
            self.fill = self._fills(table)
        self.names = []
        groups = []
        for j, name in enumerate(table.names()):
            onehot = self.categorical == "onehot" and j in self.texts
            self.names += [f"{name}={text}" for text in self.texts[j]] if onehot else [name]
            groups += [j] * (len(self.texts[j]) if onehot else 1)
        self.groups = np.array(groups)
        return self

    @staticmethod
    def _refuse_text(table):
        j = min(table.texts)
        i = int(np.flatnonzero(~np.isnan(table.X[:, j]))[0])
        text = table.texts[j][int(table.X[i, j])][:40]
        raise InputError(
            f"{table.source}: column {table.names()[j]!r} holds text, first {text!r} in "
            f"{place(i, table.lines)}: give --categorical onehot or ordinal "
            "(categorical='onehot'), or leave it out"
        )

    @staticmethod
    def _known_texts(table, j):
        """The different texts of a text column, in alphabetical order."""
        codes = table.X[:, j]
        texts = sorted({table.texts[j][int(code)] for code in np.unique(codes[~np.isnan(codes)])})
        if len(texts) > MOST_TEXTS:
            raise InputError(
                f"{table.source}: text column {table.names()[j]!r} has {len(texts)} different "
                f"texts, more than {MOST_TEXTS}: if it names the rows leave it out with "
                "--drop-columns, else group its texts"
            )
        return texts

    def _fills(self, table):
        """(d,) float32: medians, and the most frequent text's number of a text column."""
        X = self._encoded(table)
        if not len(X):
            return np.zeros(self.d, np.float32)
        empty = np.isnan(X).all(axis=0)
        if empty.any():
            names = table.names()
            raise InputError(
                f"{table.source}: column {listed(repr(names[j]) for j in np.flatnonzero(empty))} "
                "has no value in the training rows: leave it out with --drop-columns"
            )
        with np.errstate(over="ignore"):  # infinity, which transform names
            fill = np.nanmedian(X, axis=0).astype(np.float32)
        for j in self.texts:
            codes = X[~np.isnan(X[:, j]), j].astype(int)
            fill[j] = np.bincount(codes).argmax()
        return fill

    def _encoded(self, table):
        """(n, d) with the numbers of the known texts, -1 for a new one, NaN for a missing one."""
        if not self.texts:
            return table.X
        X = np.array(table.X, dtype=np.float64)
        for j, texts in self.texts.items():
            if j not in table.texts:  # numbers where training had texts
                raise InputError(
                    f"{table.source}: column {table.names()[j]!r} holds numbers, in training it "
                    "held text"
                )
            number = {text: i for i, text in enumerate(texts)}
            codes = np.array(
                [number.get(text, -1) for text in table.texts[j]] + [-1], dtype=np.float64
            )
            gap = np.isnan(X[:, j])
            X[:, j] = np.where(gap, np.nan, codes[np.where(gap, -1, X[:, j]).astype(int)])
        return X

    def transform(self, table):
        """The prepared rows: (n, d') float32, finite.

        Raises:
            InputError: a missing value where they are refused, infinity, another type than numbers.
        """
        X = check_features(
            self._encoded(table), table.columns, table.source, table.lines, self.impute != "refuse"
        )
        if self.fill is not None and np.isnan(X).any():
            X = np.where(np.isnan(X), self.fill, X)
        if self.categorical != "onehot" or not self.texts:
            return X
        parts = [
            X[:, j, None] == np.arange(len(self.texts[j])) if j in self.texts else X[:, j, None]
            for j in range(self.d)
        ]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def centre(self, X):
        """A typical row (d',) of prepared rows: medians, of texts the most frequent."""
        centre = np.median(X, axis=0)
        for j in self.texts:
            of = self.groups == j
            codes, counts = np.unique(X[:, of], axis=0, return_counts=True)
            centre[of] = codes[counts.argmax()]
        return centre

    def unknown(self, table):
        """(n, d) True where a text column holds a text that no training row held."""
        out = np.zeros((len(table), self.d), dtype=bool)
        texts = list(self.texts)
        if texts:
            out[:, texts] = self._encoded(table)[:, texts] == -1
        return out

    def check(self, d):
        """Refuse what no fit leaves, after :meth:`from_snapshot`. Raises ValueError."""
        texts = all(
            0 <= j < d and all(isinstance(text, str) for text in each)
            for j, each in self.texts.items()
        )
        ascending = (np.diff(self.groups) >= 0).all() and np.array_equal(
            np.unique(self.groups), np.arange(d)
        )
        if self.d != d or not texts or not ascending or len(self.names) != len(self.groups):
            raise ValueError(f"the preparation of the columns does not fit {d} columns")
        if not all(isinstance(name, str) for name in [*self.names, *(self.columns or ())]):
            raise ValueError("a column name is no text")
        if len(self.columns or range(d)) != d or (
            self.fill is not None and self.fill.shape != (d,)
        ):
            raise ValueError(f"names or fills are not those of {d} columns")

    def snapshot(self):
        """Arrays and plain values."""
        return {
            "impute": self.impute,
            "categorical": self.categorical,
            "columns": self.columns,
            "d": self.d,
            "texts": {str(j): texts for j, texts in self.texts.items()},
            "fill": self.fill,
            "names": self.names,
            "groups": self.groups,
        }

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        self = cls(saved["impute"], saved["categorical"])
        for name in ("columns", "d", "fill", "names", "groups"):
            setattr(self, name, saved[name])
        self.texts = {int(j): texts for j, texts in saved["texts"].items()}
        return self


class Standardizer:
    """Zero mean and unit variance by the training rows, clipped, and back.

    Statistics are kept in float64, results are float32. A constant column has scale 1: its rows
    become 0, and a row that differs there later keeps its difference in the column's own unit.

    Args:
        clip: bound of the standardised values, in standard deviations.
        mean: (d,) float64, or None before :meth:`fit`.
        scale: (d,) float64.
    """

    def __init__(self, clip=CLIP, mean=None, scale=None):
        if not clip > 0:
            raise InputError(f"clip={clip!r} must be above 0")
        self.clip = float(clip)
        self.mean = mean
        self.scale = scale

    def fit(self, X):
        """Take mean and scale of the training rows X (n, d); returns itself."""
        X = np.asarray(X)
        if X.ndim != 2 or len(X) == 0:
            raise InputError(
                f"X has shape {X.shape}: the scaler needs (rows, features) with at least one row"
            )
        blocks = [slice(i, i + BLOCK_ROWS) for i in range(0, len(X), BLOCK_ROWS)]
        self.mean = sum(X[b].sum(axis=0, dtype=np.float64) for b in blocks) / len(X)
        std = np.sqrt(sum(np.square(X[b] - self.mean).sum(axis=0) for b in blocks) / len(X))
        # A constant such as 0.1 written with other last digits differs by a step of float32 at
        # most: that is no spread.
        rounding = 2 * float(np.finfo(np.float32).eps) * np.abs(X).max(axis=0).astype(np.float64)
        self.scale = np.where(std <= rounding, 1.0, std)
        return self

    def transform(self, X):
        """Standardise X (n, d); returns float32 (n, d) within [-clip, clip]."""
        X = self._checked(X)
        out = np.empty(X.shape, dtype=np.float32)
        for i in range(0, len(X), BLOCK_ROWS):
            block = X[i : i + BLOCK_ROWS].astype(np.float64)
            block -= self.mean
            block /= self.scale
            np.clip(block, -self.clip, self.clip, out=out[i : i + BLOCK_ROWS], casting="same_kind")
        return out

    def inverse_transform(self, Z):
        """Standardised rows Z (n, d) in the input's units, float32; clipping is not undone."""
        Z = self._checked(Z)
        return (Z.astype(np.float64) * self.scale + self.mean).astype(np.float32)

    def _checked(self, X):
        if self.mean is None:
            raise InputError("the scaler is not fitted: call fit(X_train) first")
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(self.mean):
            raise InputError(
                f"X has shape {X.shape}: the scaler was fitted on {len(self.mean)} features, "
                "give (rows, those)"
            )
        return X

    def snapshot(self):
        """``mean`` (d,), ``scale`` (d,) and ``clip`` (), all float64, to store with the weights."""
        if self.mean is None:
            raise InputError("the scaler is not fitted: call fit(X_train) first")
        return {"mean": self.mean.copy(), "scale": self.scale.copy(), "clip": np.array(self.clip)}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`; results are equal to the bit."""
        mean, scale = (np.array(saved[name], dtype=np.float64) for name in ("mean", "scale"))
        return cls(float(np.asarray(saved["clip"])), mean, scale)
