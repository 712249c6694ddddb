"""How columns are prepared for the networks, learned from training rows only (M1).

:class:`Preparation` fills gaps and encodes texts; :class:`data.scaler.ColumnScaler` then brings
every column to one scale. Gaps and texts are refused by default: to fill a gap or to replace a text
by a number is an assumption about the table.

Shapes: n rows, d columns of the table, d' prepared ones.
"""

from dataclasses import dataclass

import numpy as np

from swift_hydra.data.cells import place
from swift_hydra.data.frames import repeated
from swift_hydra.data.reading import check_remembered
from swift_hydra.data.table import check_features
from swift_hydra.data.text_columns import TextColumn
from swift_hydra.data.texts import why_texts
from swift_hydra.geometry import spread_over
from swift_hydra.settings import LISTED, InputError, check_choice, listed, setting

IMPUTE = ("refuse", "median", "indicator")
CATEGORICAL = ("refuse", "onehot", "ordinal", "frequency")
LEARNED = {"logs": "logs", "tails": "tail", "single": "single"}  # in a file: of a TextColumn
LOOKED_AT = 10_000  # most rows that show how many values a column takes
FEW_VALUES = 20  # a gap in a column of no more values is one of these
STEP = 1e-10  # of what is written into other gaps, in interquartile ranges
MOST_TEXTS = 255  # different texts in a column: more of them name the rows rather than group them


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
        None,
        "label of anomalies, all others, but -1 beside them, are normal (default: 1, true, yes)",
    )
    majority_anomalies: bool = setting(
        False, "take it that more than half of the rows are anomalies"
    )


class Preparation:
    """Fills gaps and encodes text columns.

    Args:
        impute: "refuse"; "median": the training rows' median, of a text column its most frequent
            text; "indicator": the same, and a column of 0 and 1 for every column that has gaps in
            the training rows. With "median" a gap counts as a typical value.
        categorical: "refuse".
            "onehot": a column of 0 and 1 for every text of the training rows.
            "ordinal": the text's place in alphabetical order; a new text is -1.
            Both have one more column of 0 and 1 for texts that the training rows lack, and one for
            texts of single training rows and those that they lack. Misspelt texts have that in
            common, which no place in the alphabet shows.
            "frequency": the logarithm of how many training rows hold it, for columns of many
            texts. Counts of 1 and 0 are both taken as 1/2: a new text looks like one that a single
            training row holds.
            Where many rows hold a text of their own, see :class:`data.text_columns.TextColumn`.

    Attributes after ``fit``, d input columns, d' prepared ones:
        columns: d names, or None.
        named: the names are the user's, not made up; None if an older file does not say.
        of_text: {column number: :class:`data.text_columns.TextColumn`} of the text columns.
        groups: (d',) which input column a prepared one came from.
        names: d' names, ``column=text`` for one-hot columns, ``column missing`` for indicators.
        gaps: numbers of the columns that have an indicator.
        reading: how the training table's file was read, or None.
        dated: numbers of the columns that held dates; None if an older file does not say.
        d: number of input columns.
        fill: what fills the gaps of the columns, None if gaps are refused.
        steps: (d,) by how much more :meth:`mark_gaps` writes into a gap, which no cell of the table
            holds, so that :meth:`bounds_of_gaps` can tell; 0 for texts and columns of few values,
            None if gaps are refused or an older file does not say.
        reordered: names of the columns whose declared order the codes do not follow; empty if read
            from a file.
    """

    def __init__(self, impute="refuse", categorical="refuse"):
        check_choice("impute", impute, IMPUTE)
        check_choice("categorical", categorical, CATEGORICAL)
        self.impute = impute
        self.categorical = categorical
        self.reordered = []

    @classmethod
    def of(cls, settings):
        """A preparation with the options of :class:`ColumnSettings`."""
        return cls(settings.impute, settings.categorical)

    def fit(self, table, subjects=None):
        """Learn fills and texts from the training rows.

        Args:
            table: a :class:`data.table.Table`.
            subjects: (n,) numbers of the rows' subjects, or None.

        Raises:
            InputError: two columns have one name, a text column is refused or has too many texts,
                or a column with gaps to fill has no value at all.
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
        self.of_text = {
            j: TextColumn(self.categorical, TextColumn.texts_of(table.X[:, j], texts))
            for j, texts in table.texts.items()
        }
        if self.categorical != "frequency":
            self._refuse_many_texts(table)
        X = self._encoded(table)
        for j, column in self.of_text.items():
            column.learn(X[:, j], subjects)
        if self.categorical == "ordinal":
            self.reordered = [
                table.names()[j]
                for j, order in table.orders.items()
                if j in self.of_text and self.of_text[j].reorders(order)
            ]
        self.fill = self.steps = None
        # Other types are no real numbers, and transform refuses them.
        self.gaps = []
        if self.impute != "refuse" and table.X.dtype.kind in "biuf":
            self.fill = self._fills(table, X)
            self.steps = self._steps(X)
            if self.impute == "indicator":
                self.gaps = np.flatnonzero(np.isnan(table.X).any(axis=0)).tolist()
        self.names = []
        groups = []
        for j, name in enumerate(table.names()):
            prepared = self.of_text[j].names(name) if j in self.of_text else [name]
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

    def _refuse_many_texts(self, table):
        """Refuse text columns with too many texts, all of them in one message."""
        names, problems = table.names(), []
        for j, texts in self.texts.items():
            if len(texts) > MOST_TEXTS:
                remedy = why_texts(table, j) or (
                    "if it names the rows leave it out with --drop-columns, else give "
                    "--categorical frequency or group its texts"
                )
                if "--drop-columns" not in remedy:
                    remedy += "; or leave it out with --drop-columns"
                problems.append(
                    f"text column {names[j]!r} has {len(texts)} different texts, more than "
                    f"{MOST_TEXTS}: {remedy}"
                )
        if problems:
            more = f"; ... ({len(problems)} in all)" if len(problems) > LISTED else ""
            raise InputError(f"{table.source}: {'; '.join(problems[:LISTED])}{more}")

    def flags(self):
        """Which prepared columns are columns of 0 and 1 made here: (d',) bool.

        They stand for one of a column's texts, or say where a value is missing.
        """
        flags = np.zeros(len(self.names), dtype=bool)
        for j, column in self.of_text.items():
            own, first = column.flags(), self.first_of(j)
            flags[first : first + len(own)] = own
        return flags | self.gap_flags()

    def gap_flags(self):
        """Which prepared columns say where a value is missing: (d',) bool."""
        flags = np.zeros(len(self.names), dtype=bool)
        for j in self.gaps:  # the last of the column's own
            flags[np.flatnonzero(self.groups == j)[-1]] = True
        return flags

    def places(self):
        """Which prepared columns are places in an alphabet, which measure nothing: (d',) bool."""
        places = np.zeros(len(self.names), dtype=bool)
        if self.categorical == "ordinal":
            places[[self.first_of(j) for j in self.of_text]] = True
        return places

    def notes(self):
        """Yield warnings of texts with one code, and of an order that the codes do not follow."""
        if self.reordered:
            yield (
                f"column {listed(map(repr, self.reordered))}: --categorical ordinal codes its "
                "categories by the alphabet, not in the order that they declare: give numbers in "
                "that order in place of them, or onehot"
            )
        merged = []
        for j, column in self.of_text.items():
            texts = column.merged()
            if texts:
                merged.append(f"{self.names[self.first_of(j)]!r} ({listed(map(repr, texts))})")
        if merged:
            yield (
                f"column {listed(merged)}: texts that equally many rows hold are one to "
                "--categorical frequency: onehot tells them apart"
            )

    def _fills(self, table, X):
        """(d,) float64: medians, or for a text column the number of its most frequent text.

        X (n, d): the table, encoded.
        """
        if not len(X):
            return np.zeros(self.d)
        empty = np.isnan(X).all(axis=0)
        if empty.any():
            names = table.names()
            raise InputError(
                f"{table.source}: column {listed(repr(names[j]) for j in np.flatnonzero(empty))} "
                "has no value in the training rows: leave it out with --drop-columns"
            )
        with np.errstate(over="ignore"):  # transform reports infinite values
            fill = _medians(X, np.nanmedian).astype(np.float64)
        for j in self.of_text:
            numbers = X[~np.isnan(X[:, j]), j].astype(int)
            fill[j] = np.bincount(numbers).argmax()
        return fill

    def _steps(self, X):
        """(d,) see ``steps``, of the columns that take many values; X (n, d): encoded."""
        steps = np.zeros(self.d)
        some = X[spread_over(len(X), LOOKED_AT)]
        for j in set(range(self.d)) - set(self.of_text):
            values = some[~np.isnan(some[:, j]), j].astype(np.float64)
            if len(np.unique(values)) > FEW_VALUES and np.isfinite(values).all():
                low, high = np.quantile(values, (0.25, 0.75))
                steps[j] = max(STEP * (high - low), 4 * np.spacing(abs(self.fill[j])))
        return steps

    @property
    def in_gaps(self):
        """(d,) float64, what is written into the gaps of each column in the end."""
        return self.fill if self.steps is None else self.fill + self.steps

    def mark_gaps(self, X, table):
        """Prepared rows X (n, d') of a table, with ``steps`` added in its gaps."""
        if self.steps is None or table.X.dtype.kind != "f":
            return X
        gaps = np.isnan(table.X) & (self.steps > 0)
        if gaps.any():
            X[:, self.first] += self.steps * gaps  # no view of the table, since gaps were filled
        return X

    @property
    def first(self):
        """(d,) the number of each column's first prepared column."""
        return np.searchsorted(self.groups, np.arange(self.d))

    def without_steps(self, centre):
        """Medians (d',) of prepared rows, where what is written into gaps is the median as it is.

        It may be most rows' middle, and float32 cannot tell it from the median itself.
        """
        if self.steps is not None:
            centre = centre.copy()
            of_columns = centre[self.first]
            centre[self.first] = np.where(of_columns == self.in_gaps, self.fill, of_columns)
        return centre

    def bounds_of_gaps(self, scaler):
        """Two (d',) float32 bounds between which standardised values are filled gaps; or None.

        Args:
            scaler: the fitted :class:`data.scaler.ColumnScaler` of the prepared columns.
        """
        if self.steps is None or not self.steps.any():
            return None
        written, typical = np.zeros((2, 1, len(self.groups)))
        written[0, self.first], typical[0, self.first] = self.in_gaps, self.fill
        written, typical = (scaler.transform(row)[0] for row in (written, typical))
        half = np.abs(written - typical) / 2
        return written - half, written + half

    @property
    def texts(self):
        """{number of a text column: its texts in alphabetical order}."""
        return {j: column.texts for j, column in self.of_text.items()}

    def _encoded(self, table):
        """(n, d) with texts by their numbers, NaN for gaps; see :class:`TextColumn`."""
        if not self.of_text:
            return table.X
        X = np.array(table.X, dtype=np.float64)
        for j, column in self.of_text.items():
            if j not in table.texts:  # numbers where training had texts
                raise InputError(
                    f"{table.source}: column {table.names()[j]!r} holds numbers, in training it "
                    "held text"
                )
            X[:, j] = column.number_texts(X[:, j], table.texts[j])
        return X

    def fit_transform(self, table, subjects=None):
        """Learn from the training rows and return them prepared: (n, d'). See :meth:`fit`."""
        return self.fit(table, subjects).transform(table)

    def transform(self, table, new=False):
        """The prepared rows: (n, d') float32 or float64, finite.

        Args:
            table: the rows.
            new: the rows are not the training rows; each counts as one more beside those.

        Raises:
            InputError: a missing value if these are refused, infinity, another type than numbers.
        """
        X = self._encoded(table)
        # A row with a filled gap does not count as one more row that holds the text.
        beside = {j: new & ~np.isnan(X[:, j, None]) for j in self.of_text}
        X = check_features(X, table.columns, table.source, table.lines, self.impute != "refuse")
        if self.fill is not None:
            X = self._filled(X)
        if not self.of_text and not self.gaps:
            return X
        parts = []
        for j in range(self.d):
            column = X[:, j, None]
            parts += self.of_text[j].encode(column, beside[j]) if j in self.of_text else [column]
            if j in self.gaps:
                parts.append(np.isnan(table.X[:, j, None]))
        return np.concatenate(parts, axis=1, dtype=X.dtype)

    def _filled(self, X):
        """X (n, d) with ``fill`` in its gaps: float64 if it has any, which marks of gaps need.

        A narrow type's median is the median itself, as :meth:`data.scaler.ColumnScaler.widened`
        has it where there is no gap: else a gap would move the scores of the rows beside it.
        """
        gaps = np.isnan(X)
        if not gaps.any():
            return X
        with np.errstate(over="ignore"):  # a median beyond the narrow type
            typical = X == self.fill.astype(X.dtype)
        return np.where(gaps | typical, self.fill, X)

    def centre(self, X):
        """A typical prepared row (d',): medians, and of text columns the most frequent text."""
        centre = _medians(X, np.median)
        for j, column in self.of_text.items():
            own = self.groups == j
            centre[own] = column.centre(X[:, own])
        return centre

    def span(self, X):
        """Smallest and largest values of the training rows X (n, d') when encoded as new rows."""
        low, high = X.min(axis=0), X.max(axis=0)
        for j, column in self.of_text.items():
            at = self.first_of(j)
            low[at], high[at] = column.span(low[at], high[at])
        return low, high

    def first_of(self, j):
        """Number of the first prepared column that came from column j."""
        return int(np.searchsorted(self.groups, j))

    def unknown(self, table):
        """(n, d) True where a column holds a text that no training row held.

        False in columns with a tail: unique texts were usual there in training too.
        """
        out = np.zeros((len(table), self.d), dtype=bool)
        if self.of_text:
            X = self._encoded(table)
            for j, column in self.of_text.items():
                out[:, j] = column.unknown(X[:, j])
        return out

    def check(self, d):
        """Raise ValueError if, after :meth:`from_snapshot`, the state is not one of a fit."""
        if self.d != d or len(self.groups) < d:  # before memory for d numbers is allocated
            raise ValueError(f"the preparation of the columns does not fit {d} columns")
        texts = all(0 <= j < d and column.is_whole() for j, column in self.of_text.items())
        ascending = (np.diff(self.groups) >= 0).all() and np.array_equal(
            np.unique(self.groups), np.arange(d)
        )
        if not texts or not ascending or len(self.names) != len(self.groups):
            raise ValueError(f"the preparation of the columns does not fit {d} columns")
        if self.reading is not None:
            check_remembered(self.reading)
        if not all(isinstance(name, str) for name in [*self.names, *(self.columns or ())]):
            raise ValueError("a column name is no text")
        if not all(isinstance(j, int) for j in [*(self.dated or ()), *self.gaps]):
            raise ValueError("a number of a column of dates or gaps is none")
        filled = [each for each in (self.fill, self.steps) if each is not None]
        if len(self.columns or range(d)) != d or any(each.shape != (d,) for each in filled):
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
            **{name: self._of_texts(attribute) for name, attribute in LEARNED.items()},
            "fill": self.fill,
            "steps": self.steps,
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
        self.steps = saved.get("steps")  # older files have none
        self.named = saved.get("named")
        self.reading = saved.get("reading")  # older files have none
        self.dated = saved.get("dated")
        self.gaps = saved.get("gaps", [])
        older = self.named is None
        self.of_text = {
            int(j): TextColumn(self.categorical, texts, six_digits=older)
            for j, texts in saved["texts"].items()
        }
        for name, attribute in LEARNED.items():
            for j, learned in saved.get(name, {}).items():  # older files lack some
                if int(j) not in self.of_text:
                    raise ValueError(f"{name} are of column {j}, which holds no texts")
                setattr(self.of_text[int(j)], attribute, learned)
        return self

    def _of_texts(self, attribute):
        """{number of a text column as a text: what it learned}, for the columns that did."""
        learned = {str(j): getattr(column, attribute) for j, column in self.of_text.items()}
        return {j: each for j, each in learned.items() if each is not None}


def _medians(X, median):
    """Medians (d,) of rows (n, d), in float64 if the sum of two float32 values overflows."""
    with np.errstate(over="ignore"):
        found = median(X, axis=0)
    beyond = ~np.isfinite(found)
    if beyond.any():
        found[beyond] = median(X[:, beyond].astype(np.float64), axis=0)
    return found
