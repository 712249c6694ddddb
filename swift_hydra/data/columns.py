"""What becomes of columns on their way to the networks, learned from training rows only (M1).

:class:`Preparation` fills gaps and encodes texts, :class:`ColumnScaler` brings every column to one
scale. Gaps and texts are refused unless asked for: a filled gap and a number in place of a text are
assumptions about the table.

Shapes: n rows, d columns of the table, d' prepared ones.
"""

from dataclasses import dataclass

import numpy as np

from swift_hydra.data.frames import NUMBER, one_spelling, repeated, same_value
from swift_hydra.data.reading import check_remembered
from swift_hydra.data.table import check_features, listed, place
from swift_hydra.data.texts import why_texts
from swift_hydra.geometry import bend, unbend
from swift_hydra.settings import InputError, check_choice, setting

IMPUTE = ("refuse", "median", "indicator")
CATEGORICAL = ("refuse", "onehot", "ordinal", "frequency")
MOST_TEXTS = 255  # different texts in a column: more of them name the rows rather than group them
FEW_TEXTS = 50  # of which each is somebody's to tell apart
# Shares of the rows below and above, and the standard deviations between a normal distribution's
# two quantiles.
QUANTILES = ((0.1, 2.563), (0.05, 3.290), (0.02, 4.107), (0.01, 4.653))
MOST_DEVIATIONS = 1e150  # what a float64 can square
LARGEST = np.finfo(np.float64).max
SMALLEST = np.finfo(np.float64).smallest_subnormal  # a scale that is rounded to 0 is none
BLOCK_ROWS = 65_536  # rows in float64 at once: all of a large table take over a gigabyte


@dataclass(eq=False, repr=False, kw_only=True)
class ColumnSettings:
    """What gaps, texts, dates and labels mean; see :class:`Preparation` and :mod:`data.labels`."""

    impute: str = setting(
        "refuse",
        "missing values: refuse, the training rows' median, or that and a column of 0 and 1 beside "
        "it (indicator), where that a value is missing tells something",
        choices=IMPUTE,
    )
    categorical: str = setting(
        "refuse",
        "text columns: refuse, onehot, ordinal, or frequency (how often a text is there)",
        choices=CATEGORICAL,
    )
    dates: bool = setting(False, "take dates as days since 1970, otherwise they are refused")
    anomaly_label: str | None = setting(
        None, "label of anomalies, all others are normal (default: 1, true, yes)"
    )
    majority_anomalies: bool = setting(
        False, "take it that more than half of the rows are anomalies"
    )


class Preparation:
    """Fills gaps and encodes text columns.

    Args:
        impute: "refuse"; "median": the training rows' median, of a text column its most frequent
            text; "indicator": the same, and a column of 0 and 1 for every column that has gaps in
            the training rows. To "median" a gap is a value in the middle.
        categorical: "refuse"; "onehot": a column of 0 and 1 for every text of the training rows (a
            new text is 0 in all of them); "ordinal": the text's place in alphabetical order (a new
            text is -1); "frequency": the logarithm of how many training rows hold it, an
            answer to columns of many texts. One row and none count half: a new text looks like one
            that a single training row holds.

    Attributes after ``fit``, d input columns, d' prepared ones:
        columns: d names, or None.
        named: somebody gave these names; None in files that do not say so.
        groups: (d',) which input column a prepared one came from.
        names: d' names, ``column=text`` for one-hot columns, ``column missing`` for indicators.
        gaps: numbers of the columns that have an indicator.
        reading: how the training table's file was read, or None.
        dated: numbers of the columns that held dates; None in files that do not say so.
    """

    reading = None  # of pickles from before there was one
    dated = None
    gaps = ()

    def __init__(self, impute="refuse", categorical="refuse"):
        check_choice("impute", impute, IMPUTE)
        check_choice("categorical", categorical, CATEGORICAL)
        self.impute = impute
        self.categorical = categorical

    @classmethod
    def of(cls, settings):
        """As :class:`ColumnSettings` say."""
        return cls(settings.impute, settings.categorical)

    def fit(self, table):
        """Learn fills and texts from the training rows, a :class:`data.table.Table`.

        Raises:
            InputError: a name that two columns have, a text column where they are refused or with
                too many texts, a column without any value.
        """
        self.columns = table.columns
        self.named = bool(table.columns) and table.named
        twice = repeated(table.columns or ())
        if twice:
            raise InputError(
                f"{table.source}: column {listed(map(repr, twice))} is there more than once: give "
                "every column a name of its own"
            )
        self.reading = table.reading
        self.dated = list(table.dated)
        self.d = table.X.shape[1]
        if table.texts and self.categorical == "refuse":
            self._refuse_text(table)
        self.texts = {j: self._known_texts(table, j) for j in table.texts}
        self.logs = {}
        if self.categorical == "frequency":
            self.logs = {j: self._log_counts(table, j) for j in table.texts}
        self.fill = None
        # What is no real number is refused by transform.
        self.gaps = []
        if self.impute != "refuse" and table.X.dtype.kind in "biuf":
            self.fill = self._fills(table)
            if self.impute == "indicator":
                self.gaps = np.flatnonzero(np.isnan(table.X).any(axis=0)).tolist()
        self.names = []
        groups = []
        for j, name in enumerate(table.names()):
            onehot = self.categorical == "onehot" and j in self.texts
            prepared = [f"{name}={text}" for text in self.texts[j]] if onehot else [name]
            prepared += [f"{name} missing"] * (j in self.gaps)
            self.names += prepared
            groups += [j] * len(prepared)
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

    def _known_texts(self, table, j):
        """The different texts of a text column, in alphabetical order.

        Of one value that is written in several ways, 7 and 7.0, the first of them.
        """
        codes = table.X[:, j]
        texts = sorted({table.texts[j][int(code)] for code in np.unique(codes[~np.isnan(codes)])})
        first = {one_spelling(text): text for text in reversed(texts)}
        texts = sorted(first.values())
        if len(texts) > MOST_TEXTS and self.categorical != "frequency":
            remedy = why_texts(table, j) or (
                "if it names the rows leave it out with --drop-columns, else give --categorical "
                "frequency or group its texts"
            )
            raise InputError(
                f"{table.source}: text column {table.names()[j]!r} has {len(texts)} different "
                f"texts, more than {MOST_TEXTS}: {remedy}"
            )
        return texts

    def _log_counts(self, table, j):
        """Logarithms of how often each known text is there, the last of a new one: (texts + 1,).

        A training row is coded as a new row with its text is. Counted once less, without the row
        itself, it would stand off the values that all new rows have.
        """
        codes = self._encoded(table)[:, j]
        counts = np.bincount(codes[codes >= 0].astype(int), minlength=len(self.texts[j]))
        return np.log([*np.where(counts > 1, counts, 0.5), 0.5])

    def notes(self):
        """A text where ``frequency`` makes one of several texts of a column that has few."""
        merged = []
        for j, logs in self.logs.items():
            number, counts = np.unique(logs[:-1], return_counts=True)
            alike = number[(counts > 1) & (number > 0)]
            if len(alike) and len(logs) <= FEW_TEXTS:
                texts = [self.texts[j][i] for i in np.flatnonzero(logs[:-1] == alike[-1])]
                merged.append(f"{self.names[j]!r} ({listed(map(repr, texts))})")
        if merged:
            yield (
                f"column {listed(merged)}: texts that equally many rows hold are one to "
                "--categorical frequency: onehot tells them apart"
            )

    def _fills(self, table):
        """(d,) float64: medians, and the most frequent text's number of a text column."""
        X = self._encoded(table)
        if not len(X):
            return np.zeros(self.d)
        empty = np.isnan(X).all(axis=0)
        if empty.any():
            names = table.names()
            raise InputError(
                f"{table.source}: column {listed(repr(names[j]) for j in np.flatnonzero(empty))} "
                "has no value in the training rows: leave it out with --drop-columns"
            )
        with np.errstate(over="ignore"):  # infinity, which transform names
            fill = _medians(X, np.nanmedian).astype(np.float64)
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
            find = self._finder(texts)
            codes = np.array([*map(find, table.texts[j]), -1], dtype=np.float64)
            gap = np.isnan(X[:, j])
            X[:, j] = np.where(gap, np.nan, codes[np.where(gap, -1, X[:, j]).astype(int)])
        return X

    def _finder(self, texts):
        """A function from a text to its number among these, -1 of a new one.

        A bool or number that another container writes in another way is the same text, where it
        can be no other one.
        """
        exact = {text: i for i, text in enumerate(texts)}
        same = {}
        for i, text in enumerate(texts):
            same.setdefault(same_value(text), []).append(i)

        def find(text):
            if text in exact:
                return exact[text]
            at = same.get(same_value(text), ())
            if len(at) == 1:
                return at[0]
            if self.named is None and NUMBER.fullmatch(text):  # older files hold six digits
                return exact.get(f"{float(text):g}", -1)
            return -1

        return find

    def fit_transform(self, table):
        """Learn from the training rows and return them prepared: (n, d')."""
        return self.fit(table).transform(table)

    def transform(self, table):
        """The prepared rows: (n, d') float32 or float64, finite.

        Raises:
            InputError: a missing value where they are refused, infinity, another type than numbers.
        """
        X = self._encoded(table)
        if self.fill is not None and self.logs and np.isnan(X).any():
            X = np.where(np.isnan(X), self.fill, X)  # a text before it becomes a frequency
        for j, logs in self.logs.items():
            known = ~np.isnan(X[:, j])
            X[known, j] = logs[X[known, j].astype(int)]  # -1, a new text, is the last
        X = check_features(X, table.columns, table.source, table.lines, self.impute != "refuse")
        if self.fill is not None and np.isnan(X).any():
            X = np.where(np.isnan(X), self.fill, X)
        onehot = self.texts if self.categorical == "onehot" else ()
        if not onehot and not self.gaps:
            return X
        parts = []
        for j in range(self.d):
            column = X[:, j, None]
            parts.append(column == np.arange(len(self.texts[j])) if j in onehot else column)
            if j in self.gaps:
                parts.append(np.isnan(table.X[:, j, None]))
        return np.concatenate(parts, axis=1, dtype=X.dtype)

    def centre(self, X):
        """A typical row (d',) of prepared rows: medians, of texts the most frequent."""
        centre = _medians(X, np.median)
        for j in self.texts:
            of = self.groups == j
            codes, counts = np.unique(X[:, of], axis=0, return_counts=True)
            centre[of] = codes[counts.argmax()]
            if j in self.logs:  # the last is of new texts
                centre[self.first_of(j)] = self.logs[j][:-1].max()
        return centre

    def span(self, X):
        """Smallest and largest values of the training rows X (n, d'), as new rows show them."""
        low, high = X.min(axis=0), X.max(axis=0)
        for j, logs in self.logs.items():
            at = self.first_of(j)
            low[at], high[at] = min(low[at], logs[:-1].min()), max(high[at], logs[:-1].max())
        return low, high

    def first_of(self, j):
        """Number of the first prepared column that came from column j."""
        return int(np.searchsorted(self.groups, j))

    def unknown(self, table):
        """(n, d) True where a text column holds a text that no training row held."""
        out = np.zeros((len(table), self.d), dtype=bool)
        texts = list(self.texts)
        if texts:
            out[:, texts] = self._encoded(table)[:, texts] == -1
        return out

    def check(self, d):
        """Refuse what no fit leaves, after :meth:`from_snapshot`. Raises ValueError."""
        if self.d != d or len(self.groups) < d:  # before memory for d numbers is taken
            raise ValueError(f"the preparation of the columns does not fit {d} columns")
        texts = all(
            0 <= j < d and all(isinstance(text, str) for text in each)
            for j, each in self.texts.items()
        )
        ascending = (np.diff(self.groups) >= 0).all() and np.array_equal(
            np.unique(self.groups), np.arange(d)
        )
        texts = texts and all(
            j in self.texts and logs.shape == (len(self.texts[j]) + 1,) and np.isfinite(logs).all()
            for j, logs in self.logs.items()
        )
        if not texts or not ascending or len(self.names) != len(self.groups):
            raise ValueError(f"the preparation of the columns does not fit {d} columns")
        if self.reading is not None:
            check_remembered(self.reading)
        if not all(isinstance(name, str) for name in [*self.names, *(self.columns or ())]):
            raise ValueError("a column name is no text")
        if not all(isinstance(j, int) for j in [*(self.dated or ()), *self.gaps]):
            raise ValueError("a number of a column of dates or gaps is none")
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
            "named": self.named,
            "d": self.d,
            "texts": {str(j): texts for j, texts in self.texts.items()},
            "logs": {str(j): logs for j, logs in self.logs.items()},
            "fill": self.fill,
            "names": self.names,
            "groups": self.groups,
            "reading": self.reading,
            "dated": self.dated,
            "gaps": self.gaps,
        }

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        self = cls(saved["impute"], saved["categorical"])
        for name in ("columns", "d", "fill", "names", "groups"):
            setattr(self, name, saved[name])
        self.named = saved.get("named")
        self.reading = saved.get("reading")  # older files have none
        self.dated = saved.get("dated")
        self.gaps = saved.get("gaps", [])
        self.texts = {int(j): texts for j, texts in saved["texts"].items()}
        self.logs = {int(j): logs for j, logs in saved["logs"].items()}
        return self


class ColumnScaler:
    """Every column to one scale that a few absurd rows cannot move, tails bent, and back (M1).

    u = (x - median) / scale, and z = u / sqrt(1 + (u / 5)^2): within +-5, in order to the end. The
    scale is the distance between two quantiles, as a normal distribution's standard deviation would
    be taken from it: .1 and .9, or the first pair farther out between which values differ at all.
    Where fewer values differ than that, it is their typical difference from the median times the
    root of their share: the standard deviation, but of one absurd value of many no more than its
    own size.

    All arithmetic is float64, results are float32. A constant column has scale 1, or its own size
    where that is less: its rows become 0, and a row that differs there later is far away in small
    units as well as beside a large offset.

    # DIFF(paper): the released code takes mean and standard deviation.

    Args:
        centre: (d,) float64, or None before :meth:`fit`.
        scale: (d,) float64.
        block_rows: rows that are held in float64 at once.
    """

    def __init__(self, centre=None, scale=None, block_rows=BLOCK_ROWS):
        self.centre = centre
        self.scale = scale
        self.block_rows = block_rows

    def fit(self, X):
        """Take centre and scale of the training rows X (n, d); returns itself."""
        X = np.asarray(X)
        if X.ndim != 2 or len(X) == 0:
            raise InputError(
                f"X has shape {X.shape}: the scaler needs (rows, features) with at least one row"
            )
        stats = np.array([_centre_and_scale(column) for column in X.T], dtype=np.float64)
        self.centre, self.scale = stats.reshape(-1, 2).T.copy()
        return self

    def transform(self, X):
        """Standardise X (n, d); returns float32 (n, d) within +-5."""
        X = self._checked(X)
        out = np.empty(X.shape, dtype=np.float32)
        for i in range(0, len(X), self.block_rows):
            rows = slice(i, i + self.block_rows)
            block = X[rows].astype(np.float64)
            with np.errstate(over="ignore"):  # what overflows is done again in halves, or clipped
                block -= self.centre
                over = np.isinf(block)
                block /= self.scale
                if over.any():
                    halves = (X[rows] / 2.0 - self.centre / 2) / (self.scale / 2)
                    block[over] = halves[over]
            np.clip(block, -MOST_DEVIATIONS, MOST_DEVIATIONS, out=block)
            out[rows] = bend(block)
        return out

    def inverse_transform(self, Z):
        """Standardised rows Z (n, d) in the input's units, float64."""
        with np.errstate(over="ignore"):
            X = unbend(self._checked(Z)) * self.scale + self.centre
        return np.clip(X, -LARGEST, LARGEST)

    def _checked(self, X):
        if self.centre is None:
            raise InputError("the scaler is not fitted: call fit(X_train) first")
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(self.centre):
            raise InputError(
                f"X has shape {X.shape}: the scaler was fitted on {len(self.centre)} features, "
                "give (rows, those)"
            )
        return X

    def snapshot(self):
        """``centre`` (d,) and ``scale`` (d,), float64, to store with the weights."""
        if self.centre is None:
            raise InputError("the scaler is not fitted: call fit(X_train) first")
        return {"centre": self.centre.copy(), "scale": self.scale.copy()}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`; results are equal to the bit.

        Raises:
            ValueError: for what no fit leaves.
        """
        centre, scale = (np.array(saved[name], dtype=np.float64) for name in ("centre", "scale"))
        if not (np.isfinite(centre).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("centre or scale is not finite, or a scale is not above 0")
        return cls(centre, scale)


def _medians(X, median):
    """Medians (d,) of rows (n, d); the sum of two float32 values can be beyond all of them."""
    with np.errstate(over="ignore"):
        found = median(X, axis=0)
    beyond = ~np.isfinite(found)
    if beyond.any():
        found[beyond] = median(X[:, beyond].astype(np.float64), axis=0)
    return found


def check_span(X, names, source):
    """Refuse columns of training rows X (n, d) whose differences are no float64 any more.

    Raises:
        InputError: naming them.
    """
    largest = np.maximum(X.max(axis=0), -X.min(axis=0))
    wide = np.flatnonzero(largest > LARGEST / 2)
    if len(wide):
        raise InputError(
            f"{source}: column {listed(repr(names[j]) for j in wide)} holds values beyond "
            f"{LARGEST / 2:.1g}, up to {largest[wide[0]]:.3g}: float64 does not hold their "
            "differences: divide the column by a constant"
        )


def _centre_and_scale(column):
    """Median and robust scale of one column (n,); see :class:`ColumnScaler`."""
    values = np.sort(column.astype(np.float64))
    n = len(values)
    centre = values[(n - 1) // 2]  # one of the values: a frequent one becomes exactly 0
    # Written in decimals, a constant can differ in its last digit: that is no spread.
    single = column.dtype.kind == "f" and column.dtype.itemsize <= 4
    step = 2 * np.finfo(np.float32).eps if single else 16 * np.finfo(np.float64).eps
    for share, deviations in QUANTILES:
        out = int(np.ceil(share * (n - 1)))  # rows outside on either side, at least one
        if out <= (n - 1) // 2:
            low, high = values[out], values[n - 1 - out]
            if high - low > step * max(abs(low), abs(high)):
                return centre, max((high - low) / deviations, SMALLEST)
    away = np.abs(values - centre)
    away = away[away > step * np.maximum(np.abs(values), abs(centre))]
    if not len(away):  # a small constant's size is all that is known of its unit
        return centre, min(abs(centre), 1.0) or 1.0
    return centre, max(float(np.median(away) * np.sqrt(len(away) / n)), SMALLEST)
