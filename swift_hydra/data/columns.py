"""How columns are prepared for the networks, learned from training rows only (M1).

:class:`Preparation` fills gaps and encodes texts; :class:`data.scaler.ColumnScaler` then brings
every column to one scale. Gaps and texts are refused by default: to fill a gap or to replace a text
by a number is an assumption about the table.

Shapes: n rows, d columns of the table, d' prepared ones.
"""

from dataclasses import dataclass

import numpy as np

from swift_hydra.data.cells import place
from swift_hydra.data.frames import NUMBER, one_spelling, repeated, same_value
from swift_hydra.data.reading import check_remembered
from swift_hydra.data.table import check_features
from swift_hydra.data.texts import why_texts
from swift_hydra.settings import LISTED, InputError, check_choice, listed, setting

IMPUTE = ("refuse", "median", "indicator")
CATEGORICAL = ("refuse", "onehot", "ordinal", "frequency")
MOST_TEXTS = 255  # different texts in a column: more of them name the rows rather than group them
MOST_ALONE = 0.05  # with more than this share of unique texts a column has a tail of rare texts
COUNTED = 16  # from this many rows of a text on, one row more or less does not matter
FEW_TEXTS = 50  # a column with more codes than this gets no warning of merged texts
FEWEST_ROWS = 30  # fewer rows do not show whether texts recur
ALONE, PAIRED = -1, -2  # ordinal codes of texts that no other row, and one other row, holds


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
            the training rows. With "median" a gap cannot be told from a typical value.
        categorical: "refuse".
            "onehot": a column of 0 and 1 for every text of the training rows.
            "ordinal": the text's place in alphabetical order; a new text is -1.
            Both have one more column of 0 and 1 for texts that the training rows lack, and one for
            texts of single training rows and those that they lack. Misspelt texts have that in
            common, which no place in the alphabet shows.
            "frequency": the logarithm of how many training rows hold it, for columns of many
            texts. Counts of 1 and 0 are both taken as 1/2: a new text looks like one that a single
            training row holds.
            If more than a twentieth of the rows hold a text that no other row holds, the column
            has a tail of rare texts. Then it matters how many *other* rows hold the text, and a
            new row counts as one more row beside the training rows. "onehot" gives the texts that
            no other row holds one shared column, which is 1 for new texts too, and those that one
            other row holds another; "ordinal" codes the former as -1, like new texts, and the
            latter as -2 (not in tables of fewer than ``FEWEST_ROWS`` rows).

    Attributes after ``fit``, d input columns, d' prepared ones:
        columns: d names, or None.
        named: the names are the user's, not made up; None if an older file does not say.
        tails: {column number: (texts,) how many training rows hold each} of columns with a tail.
        single: {column number: (texts,) bool, which texts a single training row holds, or rows of a
            single subject} of columns without a tail, but for "frequency"; empty in older files.
        groups: (d',) which input column a prepared one came from.
        names: d' names, ``column=text`` for one-hot columns, ``column missing`` for indicators.
        gaps: numbers of the columns that have an indicator.
        reading: how the training table's file was read, or None.
        dated: numbers of the columns that held dates; None if an older file does not say.
    """

    def __init__(self, impute="refuse", categorical="refuse"):
        check_choice("impute", impute, IMPUTE)
        check_choice("categorical", categorical, CATEGORICAL)
        self.impute = impute
        self.categorical = categorical

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
        self.texts = {j: self._known_texts(table, j) for j in table.texts}
        if self.categorical != "frequency":
            self._refuse_many_texts(table)
        counts = self._counts(table)
        most = max(1, MOST_ALONE * len(table))
        self.tails = {j: of_text for j, of_text in counts.items() if (of_text == 1).sum() > most}
        if self.categorical == "ordinal" and len(table) < FEWEST_ROWS:
            self.tails = {}
        self.logs, self.single = {}, {}
        if self.categorical == "frequency":
            self.logs = {j: _log_counts(of_text) for j, of_text in counts.items()}
        elif len(table) >= FEWEST_ROWS:
            held = counts if subjects is None else self._counts(table, subjects)
            self.single = {j: of_text == 1 for j, of_text in held.items() if j not in self.tails}
        self.reordered = []
        if self.categorical == "ordinal":
            self.reordered = [table.names()[j] for j in table.orders if self._reorders(table, j)]
        self.fill = None
        # Other types are no real numbers, and transform refuses them.
        self.gaps = []
        if self.impute != "refuse" and table.X.dtype.kind in "biuf":
            self.fill = self._fills(table)
            if self.impute == "indicator":
                self.gaps = np.flatnonzero(np.isnan(table.X).any(axis=0)).tolist()
        self.names = []
        groups = []
        for j, name in enumerate(table.names()):
            onehot = self.categorical == "onehot" and j in self.texts
            prepared = (
                self._onehot_names(name, j) if onehot else [name, *self._names_beside(name, j)]
            )
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

        Of a value that is written in several ways, such as 7 and 7.0, the first is kept.
        """
        codes = table.X[:, j]
        texts = sorted({table.texts[j][int(code)] for code in np.unique(codes[~np.isnan(codes)])})
        first = {one_spelling(text): text for text in reversed(texts)}
        return sorted(first.values())

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

    def _counts(self, table, subjects=None):
        """{text column: (texts,) how many rows hold each known text, or how many subjects}."""
        X = self._encoded(table)
        counts = {}
        for j, texts in self.texts.items():
            rows = X[:, j] >= 0
            codes = X[rows, j].astype(int)
            if subjects is not None:
                codes = np.unique(np.stack([codes, subjects[rows]]), axis=1)[0]
            counts[j] = np.bincount(codes, minlength=len(texts))
        return counts

    def _reorders(self, table, j):
        """Does a text column declare another order than the alphabet's or the reverse of that?"""
        texts = set(self.texts.get(j, ()))
        order = [text for text in table.orders[j] if text in texts]
        return order not in (sorted(order), sorted(order, reverse=True))

    def _onehot_names(self, name, j):
        """Names of the columns of 0 and 1 that stand for the texts of column j."""
        texts = self.texts[j]
        if j not in self.tails:
            return [f"{name}={text}" for text in texts] + self._names_beside(name, j)
        own = [text for text, count in zip(texts, self.tails[j], strict=True) if count > 2]
        return [f"{name}={text}" for text in own] + self._names_of(name, j, "two rows", "one row")

    def _names_beside(self, name, j):
        """Names of the columns that :meth:`_beside` makes of column j."""
        if j not in self.single:
            return []
        return self._names_of(name, j, *["one row"] * bool(self.single[j].any()), "new")

    def _names_of(self, name, j, *words):
        """Names of columns for what several texts of column j have in common."""
        shared = [f"({word})" for word in words]
        while set(shared) & set(self.texts[j]):
            shared = [f"({word})" for word in shared]
        return [f"{name}={word}" for word in shared]

    def flags(self):
        """Which prepared columns are columns of 0 and 1 made here: (d',) bool.

        They stand for one of a column's texts, or say where a value is missing.
        """
        flags = np.isin(
            self.groups, list(self.texts if self.categorical == "onehot" else self.single)
        )
        if self.categorical != "onehot":  # the place in the alphabet is none
            flags[[self.first_of(j) for j in self.single]] = False
        for j in self.gaps:  # the last of the column's own
            flags[np.flatnonzero(self.groups == j)[-1]] = True
        return flags

    def _onehot(self, codes, j, new):
        """The one-hot columns of column j: (n, ..) bool.

        Args:
            codes: (n, 1) numbers of texts, -1 for new ones.
            j: the column.
            new: (n, 1) bool, True for rows that are not training rows.
        """
        hot = codes == np.arange(len(self.texts[j]))
        if j not in self.tails:
            return np.concatenate([hot, *self._beside(codes, j)], axis=1)
        alone, paired = self._in_tail(codes, j, new)
        return np.concatenate([hot[:, self.tails[j] > 2], paired, alone], axis=1)

    def _beside(self, codes, j):
        """Whose texts no other row holds, if there are such, and whose are new: (n, 1) bool each.

        Nothing for a column with a tail; ``codes`` (n, 1) are numbers of texts, -1 for new ones.
        """
        if j not in self.single:
            return []
        unknown = codes == -1
        if not self.single[j].any():
            return [unknown]
        return [np.append(self.single[j], True)[codes.astype(int)], unknown]  # -1 is the last

    def _in_tail(self, codes, j, new):
        """Which rows hold a text that no other row holds, and which a text that one other holds.

        The arguments are those of :meth:`_onehot`; returns two (n, 1) bool.
        """
        count = np.append(self.tails[j], 0)[codes.astype(int)]  # -1, a new text, is the last
        # A new row and one training row with its text are a pair. A new row whose text two training
        # rows hold counts as paired too: there is no third kind.
        alone = np.where(new, count == 0, count == 1)
        return alone, (count > 0) & (count <= 2) & ~alone

    def _ordinal_tails(self):
        """The columns with a tail, if texts are encoded as ordinal codes."""
        return self.tails if self.categorical == "ordinal" else ()

    def _places(self, codes, j, new):
        """Ordinal codes (n, 1) of a column with a tail, from the numbers of its texts.

        If unique texts kept their own codes, no training row would have the code -1, and every row
        with a new text would look unlike all training rows.
        """
        alone, paired = self._in_tail(codes, j, new)
        return np.where(alone, ALONE, np.where(paired, PAIRED, codes))

    def _logs_of_new(self, j):
        """Frequency codes (texts + 1,) of new rows, the last one for a new text.

        In a column with a tail a new row adds one to the count of its text. From ``COUNTED`` rows
        on that would hardly matter: such texts, and all of columns without a tail, keep the
        training's codes, so that new rows have the same few values.
        """
        if j not in self.tails:
            return self.logs[j]
        counts = self.tails[j]
        return np.log(np.append(np.where(counts < COUNTED, counts + 1, counts), 0.5))

    def notes(self):
        """Yield warnings of texts with one code, and of an order that the codes do not follow."""
        if self.reordered:
            yield (
                f"column {listed(map(repr, self.reordered))}: --categorical ordinal codes its "
                "categories by the alphabet, not in the order that they declare: give numbers in "
                "that order in place of them, or onehot"
            )
        merged = []
        for j, logs in self.logs.items():
            number, counts = np.unique(logs[:-1], return_counts=True)
            alike = number[(counts > 1) & (number > 0)]
            if len(alike) and len(logs) <= FEW_TEXTS:
                texts = [self.texts[j][i] for i in np.flatnonzero(logs[:-1] == alike[-1])]
                name = self.names[self.first_of(j)]
                merged.append(f"{name!r} ({listed(map(repr, texts))})")
        if merged:
            yield (
                f"column {listed(merged)}: texts that equally many rows hold are one to "
                "--categorical frequency: onehot tells them apart"
            )

    def _fills(self, table):
        """(d,) float64: medians, or for a text column the number of its most frequent text."""
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
        with np.errstate(over="ignore"):  # transform reports infinite values
            fill = _medians(X, np.nanmedian).astype(np.float64)
        for j in self.texts:
            codes = X[~np.isnan(X[:, j]), j].astype(int)
            fill[j] = np.bincount(codes).argmax()
        return fill

    def _encoded(self, table):
        """(n, d) with texts as their numbers in ``self.texts``: -1 for new ones, NaN for gaps."""
        if not self.texts:
            return table.X
        X = np.array(table.X, dtype=np.float64)
        for j in self.texts:
            if j not in table.texts:  # numbers where training had texts
                raise InputError(
                    f"{table.source}: column {table.names()[j]!r} holds numbers, in training it "
                    "held text"
                )
            find = self._finder(j)
            codes = np.array([*map(find, table.texts[j]), -1], dtype=np.float64)
            gap = np.isnan(X[:, j])
            X[:, j] = np.where(gap, np.nan, codes[np.where(gap, -1, X[:, j]).astype(int)])
        return X

    def _numbers_of(self, j):
        """Numbers of the texts of column j: by the text, and lists of them by its value.

        Found once: a column may have as many texts as the training table had rows, and a new row
        may come alone.
        """
        texts, found = self.texts[j], vars(self).setdefault("found", {})
        if j not in found or found[j][0] is not texts:
            same = {}
            for i, text in enumerate(texts):
                same.setdefault(same_value(text), []).append(i)
            found[j] = texts, {text: i for i, text in enumerate(texts)}, same
        return found[j][1:]

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "found"}

    def _finder(self, j):
        """A function from a text to its number among those of column j, -1 for a new one.

        A bool or number that is written in another way counts as the same text, if only one known
        text has its value.
        """
        exact, same = self._numbers_of(j)

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
        beside = {j: new & ~np.isnan(X[:, j, None]) for j in self.tails}
        if self.fill is not None and self.logs and np.isnan(X).any():
            X = np.where(np.isnan(X), self.fill, X)  # fill with a text before it gets its frequency
        for j in self.logs:
            known = ~np.isnan(X[:, j])
            codes = X[known, j].astype(int)  # -1, a new text, is the last
            logs = self.logs[j][codes]
            if j in self.tails:
                logs = np.where(beside[j][known, 0], self._logs_of_new(j)[codes], logs)
            X[known, j] = logs
        X = check_features(X, table.columns, table.source, table.lines, self.impute != "refuse")
        if self.fill is not None and np.isnan(X).any():
            X = np.where(np.isnan(X), self.fill, X)
        for j in self._ordinal_tails():
            X[:, j, None] = self._places(X[:, j, None], j, beside[j])
        onehot = self.texts if self.categorical == "onehot" else ()
        if not onehot and not self.gaps and not self.single:
            return X
        parts = []
        for j in range(self.d):
            column = X[:, j, None]
            if j in onehot:
                parts.append(self._onehot(column, j, beside.get(j)))
            else:
                parts += [column, *self._beside(column, j)]
            if j in self.gaps:
                parts.append(np.isnan(table.X[:, j, None]))
        return np.concatenate(parts, axis=1, dtype=X.dtype)

    def centre(self, X):
        """A typical prepared row (d',): medians, and of text columns the most frequent text."""
        centre = _medians(X, np.median)
        for j in self.texts:
            of = self.groups == j
            codes, counts = np.unique(X[:, of], axis=0, return_counts=True)
            centre[of] = codes[counts.argmax()]
            if j in self.logs:  # the last code is that of new texts
                centre[self.first_of(j)] = self._logs_of_new(j)[:-1].max()
        return centre

    def span(self, X):
        """Smallest and largest values of the training rows X (n, d') when encoded as new rows."""
        low, high = X.min(axis=0), X.max(axis=0)
        for j in self.logs:
            at, logs = self.first_of(j), self._logs_of_new(j)
            low[at], high[at] = min(low[at], logs[:-1].min()), max(high[at], logs[:-1].max())
        for j in self._ordinal_tails():
            low[self.first_of(j)] = PAIRED
        return low, high

    def first_of(self, j):
        """Number of the first prepared column that came from column j."""
        return int(np.searchsorted(self.groups, j))

    def unknown(self, table):
        """(n, d) True where a column holds a text that no training row held.

        False in columns with a tail: unique texts were usual there in training too.
        """
        out = np.zeros((len(table), self.d), dtype=bool)
        texts = [j for j in self.texts if j not in self.tails]
        if texts:
            out[:, texts] = self._encoded(table)[:, texts] == -1
        return out

    def check(self, d):
        """Raise ValueError if, after :meth:`from_snapshot`, the state is not one of a fit."""
        if self.d != d or len(self.groups) < d:  # before memory for d numbers is allocated
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
        texts = texts and all(
            j in self.texts and counts.shape == (len(self.texts[j]),) and counts.dtype.kind == "i"
            for j, counts in self.tails.items()
        )
        texts = texts and all(
            j in self.texts and single.shape == (len(self.texts[j]),) and single.dtype == bool
            for j, single in self.single.items()
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
            "tails": {str(j): counts for j, counts in self.tails.items()},
            "single": {str(j): single for j, single in self.single.items()},
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
        self.tails = {int(j): counts for j, counts in saved.get("tails", {}).items()}
        self.single = {int(j): single for j, single in saved.get("single", {}).items()}
        return self


def _log_counts(counts):
    """Logarithms of how often each text occurs, from counts (texts,); the last is a new text's."""
    return np.log([*np.where(counts > 1, counts, 0.5), 0.5])


def _medians(X, median):
    """Medians (d,) of rows (n, d), in float64 if the sum of two float32 values overflows."""
    with np.errstate(over="ignore"):
        found = median(X, axis=0)
    beyond = ~np.isfinite(found)
    if beyond.any():
        found[beyond] = median(X[:, beyond].astype(np.float64), axis=0)
    return found
