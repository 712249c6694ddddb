"""How a column of texts becomes columns of numbers, learned from training rows only (M1).

Shapes: n rows, k prepared columns.
"""

from functools import cached_property

import numpy as np

from swift_hydra.data.frames import NUMBER, one_spelling, same_value

MOST_ALONE = 0.05  # with more than this share of unique texts a column has a tail of rare texts
COUNTED = 16  # from this many rows of a text on, one row more or less does not matter
FEW_TEXTS = 50  # a column with more codes than this gets no warning of merged texts
FEWEST_ROWS = 30  # fewer rows do not show whether texts recur
ALONE, PAIRED = -1, -2  # ordinal codes of texts that no other row, and one other row, holds
NEW = -1  # number of a text that the training rows lack


class TextColumn:
    """The texts of one column, and the columns of numbers that stand for them.

    With a tail of rare texts (more than a twentieth of the training rows hold a text that no other
    row holds) it matters how many *other* rows hold a text, and a new row counts as one more row
    beside the training rows. "onehot" then gives the texts that no other row holds one shared
    column, which is 1 for new texts too, and those that one other row holds another; "ordinal"
    codes the former as ``ALONE``, like new texts, and the latter as ``PAIRED`` (not in tables of
    fewer than ``FEWEST_ROWS`` rows).

    Args:
        how: "onehot", "ordinal" or "frequency", see :class:`data.columns.Preparation`.
        texts: the training rows' texts in alphabetical order; they are numbered in this order.
        tail: (texts,) how many training rows hold each, of a column with a tail; else None.
        single: (texts,) bool, which ones a single training row holds, or rows of a single subject.
            None with a tail, with "frequency", in small tables and in older files.
        logs: (texts + 1,) the codes of "frequency" in training, the last for a new text; else None.
        six_digits: the texts are those of an older file, in which numbers have six digits.
    """

    def __init__(self, how, texts, tail=None, single=None, logs=None, six_digits=False):
        self.how = how
        self.texts = texts
        self.tail = tail
        self.single = single
        self.logs = logs
        self.six_digits = six_digits

    @staticmethod
    def texts_of(codes, texts):
        """The different texts in use, in alphabetical order.

        Of a value that is written in several ways, such as 7 and 7.0, the first is kept.

        Args:
            codes: (n,) places in ``texts``, NaN for gaps.
            texts: a list.
        """
        used = sorted({texts[int(code)] for code in np.unique(codes[~np.isnan(codes)])})
        first = {one_spelling(text): text for text in reversed(used)}
        return sorted(first.values())

    def learn(self, numbers, subjects=None):
        """Learn how rare the texts are.

        Args:
            numbers: (n,) the training rows' texts by number, NaN for gaps.
            subjects: (n,) numbers of the rows' subjects, or None.
        """
        n = len(numbers)
        counts = self._counts(numbers, None)
        self.tail = counts if (counts == 1).sum() > max(1, MOST_ALONE * n) else None
        if self.how == "ordinal" and n < FEWEST_ROWS:
            self.tail = None
        if self.how == "frequency":
            self.logs = np.log([*np.where(counts > 1, counts, 0.5), 0.5])
        elif n >= FEWEST_ROWS and self.tail is None:
            held = counts if subjects is None else self._counts(numbers, subjects)
            self.single = held == 1

    def _counts(self, numbers, subjects):
        """How many rows hold each text, or how many subjects: (texts,)."""
        there = ~np.isnan(numbers)
        held = numbers[there].astype(int)
        if subjects is not None:
            held = np.unique(np.stack([held, subjects[there]]), axis=1)[0]
        return np.bincount(held, minlength=len(self.texts))

    def names(self, name):
        """Names of the prepared columns, from the column's own."""
        if self.how != "onehot":
            return [name, *self._names_beside(name)]
        if self.tail is None:
            return [f"{name}={text}" for text in self.texts] + self._names_beside(name)
        own = [text for text, count in zip(self.texts, self.tail, strict=True) if count > 2]
        return [f"{name}={text}" for text in own] + self._names_of(name, "two rows", "one row")

    def _names_beside(self, name):
        """Names of the columns that :meth:`_beside` makes."""
        if self.single is None:
            return []
        return self._names_of(name, *["one row"] * bool(self.single.any()), "new")

    def _names_of(self, name, *words):
        """Names of columns for what several texts have in common."""
        shared = [f"({word})" for word in words]
        while set(shared) & set(self.texts):
            shared = [f"({word})" for word in shared]
        return [f"{name}={word}" for word in shared]

    def flags(self):
        """Which prepared columns are columns of 0 and 1: (k,) bool."""
        flags = np.ones(len(self.names("")), dtype=bool)
        flags[0] = self.how == "onehot"  # a place in the alphabet, a frequency
        return flags

    def number_texts(self, codes, texts):
        """Numbers (n,) of rows' texts, ``NEW`` for new ones, NaN for gaps.

        Args:
            codes: (n,) places in ``texts``, NaN for gaps.
            texts: a list.
        """
        numbers = np.array([*map(self._find, texts), NEW], dtype=np.float64)
        gap = np.isnan(codes)
        return np.where(gap, np.nan, numbers[np.where(gap, -1, codes).astype(int)])

    def _find(self, text):
        """The number of a text, ``NEW`` for a new one.

        A bool or number that is written in another way counts as the same text, if only one known
        text has its value.
        """
        exact, same = self.found
        if text in exact:
            return exact[text]
        at = same.get(same_value(text), ())
        if len(at) == 1:
            return at[0]
        if self.six_digits and NUMBER.fullmatch(text):
            return exact.get(f"{float(text):g}", NEW)
        return NEW

    @cached_property
    def found(self):
        """Numbers of the texts, and lists of them by value.

        Found once: a column may have as many texts as the training table had rows, and a new row
        may come alone.
        """
        same = {}
        for i, text in enumerate(self.texts):
            same.setdefault(same_value(text), []).append(i)
        return {text: i for i, text in enumerate(self.texts)}, same

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "found"}

    def encode(self, numbers, new):
        """The prepared columns, a list of arrays (n, ..).

        Args:
            numbers: (n, 1) of the rows' texts.
            new: (n, 1) bool, the rows that count as one more beside the training rows.
        """
        if self.how == "frequency":
            at = numbers.astype(int)  # a new text is the last
            return [np.where(new, self._logs_of_new()[at], self.logs[at])]
        places = numbers
        if self.how == "onehot":
            places = numbers == np.arange(len(self.texts))
        if self.tail is None:
            return [places, *self._beside(numbers)]
        alone, paired = self._in_tail(numbers, new)
        if self.how == "onehot":
            return [places[:, self.tail > 2], paired, alone]
        # If unique texts kept their own codes, no training row would have the code of new texts,
        # and every row with one would look unlike all training rows.
        return [np.where(alone, ALONE, np.where(paired, PAIRED, places))]

    def _beside(self, numbers):
        """Whose texts no other row holds, if there are such, and whose are new: (n, 1) bool each.

        A place in the alphabet does not show what misspelt texts have in common.
        """
        if self.single is None:
            return []
        unknown = numbers == NEW
        if not self.single.any():
            return [unknown]
        return [np.append(self.single, True)[numbers.astype(int)], unknown]  # NEW is the last

    def _in_tail(self, numbers, new):
        """Which rows hold a text that no other row holds, and which a text that one other holds.

        The arguments are those of :meth:`encode`; returns two (n, 1) bool.
        """
        count = np.append(self.tail, 0)[numbers.astype(int)]  # NEW is the last
        # A new row and one training row with its text are a pair. A new row whose text two training
        # rows hold counts as paired too: there is no third kind.
        alone = np.where(new, count == 0, count == 1)
        return alone, (count > 0) & (count <= 2) & ~alone

    def _logs_of_new(self):
        """Frequency codes (texts + 1,) of new rows, the last one for a new text.

        In a column with a tail a new row adds one to the count of its text. From ``COUNTED`` rows
        on that would hardly matter: such texts, and all of columns without a tail, keep the
        training's codes, so that new rows have the same few values.
        """
        if self.tail is None:
            return self.logs
        return np.log(np.append(np.where(self.tail < COUNTED, self.tail + 1, self.tail), 0.5))

    def unknown(self, numbers):
        """(n,) bool, new texts by their numbers (n,).

        None in a column with a tail: unique texts were usual there in training too.
        """
        return (numbers == NEW) & (self.tail is None)

    def centre(self, X):
        """A typical prepared row (k,) of the training rows X (n, k): the most frequent text."""
        codes, counts = np.unique(X, axis=0, return_counts=True)
        centre = codes[counts.argmax()]
        if self.how == "frequency":
            centre[0] = self._logs_of_new()[:-1].max()
        return centre

    def span(self, low, high):
        """Smallest and largest value of new rows in the first prepared column, from training's."""
        if self.how == "frequency":
            logs = self._logs_of_new()[:-1]
            low, high = min(low, logs.min()), max(high, logs.max())
        elif self.how == "ordinal" and self.tail is not None:
            low = PAIRED
        return low, high

    def reorders(self, order):
        """Is ``order``, the declared order of the texts, neither the alphabet's nor its reverse?"""
        texts = set(self.texts)
        order = [text for text in order if text in texts]
        return order not in (sorted(order), sorted(order, reverse=True))

    def merged(self):
        """Texts that "frequency" gives one code, the most frequent such; empty if none or many."""
        if self.logs is None or len(self.logs) > FEW_TEXTS:
            return []
        codes, counts = np.unique(self.logs[:-1], return_counts=True)
        alike = codes[(counts > 1) & (codes > 0)]
        if not len(alike):
            return []
        return [self.texts[i] for i in np.flatnonzero(self.logs[:-1] == alike[-1])]

    def is_whole(self):
        """Whether the state, read from a file, is one of a fit."""
        m = len(self.texts)
        logs = self.logs is None or (self.logs.shape == (m + 1,) and np.isfinite(self.logs).all())
        tail = self.tail is None or (self.tail.shape == (m,) and self.tail.dtype.kind == "i")
        single = self.single is None or (self.single.shape == (m,) and self.single.dtype == bool)
        texts = all(isinstance(text, str) for text in self.texts)
        return (
            texts
            and logs
            and tail
            and single
            and (self.how == "frequency") == (self.logs is not None)
        )
