"""How far rows lie from a table that may hide anomalies, where none or hardly any is known (M12).

# DIFF(paper): an addition; the paper has labels.

:class:`TolerantDistance` tolerates hidden anomalies among the rows that it measures from: once the
farthest rows are set aside, few of a group of anomalies remain, too few to be the twenty nearest
neighbours of any row. Where all rows are trusted, ``trusted_distance.py`` is more sensitive.

Shapes: n rows, r reference rows, d features.
"""

from abc import ABC, abstractmethod

import numpy as np
from scipy.stats import skew

from swift_hydra.cleaning.suspects import REFERENCE
from swift_hydra.detection.coordinates import LEAST, NormalScores, Whitening
from swift_hydra.detection.largest_value import AboutColumns, LargestValue
from swift_hydra.geometry import ROUNDING, VECTOR, Neighbours, filled, folds_by_value, some_of
from swift_hydra.seeds import sample_of

FAR = 20  # neighbours of :class:`TolerantDistance`
NEAR = 5  # neighbours that tell how isolated a row is
EXCESS = 0.67  # weight of a :class:`DistanceExcess` beside the distance
RELATIONS = 0.33  # the same of the :class:`Relations`
LOCAL = 0.25  # the same of the :class:`LocalExcess`, at least
MOST_LOCAL = 1.0  # the same at most
SKEWED = (1.2, 2.2)  # skewness of the training rows' measures at which it is least, and most
OF_DENSITY = (0.1, 0.3)  # their correlation with sparseness at which it is most, and least
LONE = 0.25  # the same of the :class:`LoneExcess`
SAME = 1e-6  # measures that differ by less do so by rounding
COPIES = 8  # most different rows that are looked at as copies of a row up to rounding
FARTHEST = 0.25  # share of the rows, the farthest, that say what other distances are usual there
FOLDS = 8  # most folds of rows without which ranks are computed again


class TolerantDistance:
    """Logarithm of the mean distance to the twenty nearest reference rows, and what goes beyond it.

    Five more measures may add to it, by as much as they exceed what is usual so far out:

    - To the five nearest of *all* rows. The rows that were set aside are no reference rows, so that
      a small group of normal rows among them seems as far as an anomaly. But it has company.
    - Between the normal scores of ranks. A few heavy-tailed columns make up most of a distance
      between values.
    - How little a row keeps to the :class:`Relations` among the columns.
    - How much more isolated a row is than its neighbours are, see :class:`LocalExcess`.
    - How far out the row is in the one column where it is farthest out, see :class:`LoneExcess`.

    Args:
        reference: (r, d) rows.
        coded: (r,) bool, codes, see :class:`cleaning.leave_out.LeaveOut`: only one copy of them is
            left out. Needed to score training rows only.
        subjects: (r,) numbers of the subjects they were measured on, or None. Needed to score
            training rows only.
        excesses: :class:`DistanceExcess` objects; none in older files.
        relations: :class:`Relations`, or None, as in older files.
        local: :class:`LocalExcess`, or None, as in older files.
        lone: :class:`LoneExcess`, or None, as in older files.
    """

    def __init__(
        self,
        reference,
        coded=None,
        subjects=None,
        excesses=(),
        relations=None,
        local=None,
        lone=None,
    ):
        self.reference = np.asarray(reference)
        self.coded = coded
        self.subjects = subjects
        self.neighbours = Neighbours(self.reference)
        self.excesses = list(excesses)
        self.relations = relations
        self.local = local
        self.lone = lone

    @classmethod
    def fit(cls, Z, rng, coded=None, subjects=None, aside=None, about=None):
        """Draw the reference rows.

        Args:
            Z: (n, d) rows.
            rng: numpy Generator that draws from a large table.
            coded: (n,) bool, rows that new rows may well be copies of.
            subjects: (n,) numbers of the subjects they were measured on, or None.
            aside: the :class:`cleaning.suspects.AsideRows`, or None if there are none.
            about: the :class:`detection.largest_value.AboutColumns`; None: nothing is known.
        """
        rows = sample_of(len(Z), REFERENCE, rng)
        self = cls(Z[rows], *some_of(rows, coded, subjects))
        every = (Z, coded, subjects)
        if aside is not None:
            both = zip(every, (aside.Z, aside.coded, aside.subjects), strict=True)
            every = [None if a is None else np.concatenate([a, b]) for a, b in both]
        # From here on all rows, those that were set aside too.
        Z, coded, subjects = some_of(sample_of(len(every[0]), REFERENCE, rng), *every)
        ranked = self._of_ranks(Z)
        apart = self._of_ranks_apart(Z, coded, subjects)
        if subjects is not None:  # learned with their own ranks, what is usual would be too low
            ranked.apart = apart
        excesses = [DistanceExcess(Z, coded, subjects, NEAR), ranked]
        relations = Relations(self.reference, self.coded, self.subjects)
        local = LocalExcess(excesses[0].neighbours, subjects)
        lone = LoneExcess(LargestValue.of(Z, about or AboutColumns()))
        lone.among = Z
        self.excesses, self.relations, self.local, self.lone = excesses, relations, local, lone
        far, near = self._far(Z, True, subjects), self._near(Z, subjects)
        for excess in (excesses[0], local):
            excess.learn(near, far, subjects)
        for excess in (ranked, relations, lone):
            excess.learn(Z, far, subjects)
        ranked.apart = apart
        return self

    def _of_ranks(self, values):
        """The :class:`DistanceExcess` between normal scores of the ranks among values (n, d)."""
        ranks = NormalScores.fit(values)
        return DistanceExcess(ranks(self.reference), self.coded, self.subjects, FAR, ranks)

    def _of_ranks_apart(self, values, coded, subjects):
        """The same without each fold of the rows (n, d), or of the subjects (n,).

        A row that is far out has a rank of its own, which no new row has, and a subject that is far
        out fills the highest ranks itself, so that its rows would be near to others by their ranks.
        Codes (n,) bool, of which new rows are copies, stay.
        """
        fold = _folds(values, subjects)
        stays = np.zeros(len(values), bool) if coded is None or subjects is not None else coded
        others = (values[stays | (fold != number)] for number in range(FOLDS))
        return [self._of_ranks(rows if len(rows) else values) for rows in others]

    def forget_training(self):
        """Drop what only the scores of training rows need."""
        for excess in self.excesses:
            excess.apart = ()
        if self.lone is not None:
            self.lone.among = None

    def score(self, Z, others=False, subjects=None):
        """Scores (n, 1) of rows (n, d).

        Args:
            Z: the rows.
            others: leave out a row's own copies, as training rows need it.
            subjects: (n,) leave out reference rows of the same subject, too; None: no subjects.
        """
        far = self._far(Z, others, subjects)
        near = self._near(Z, subjects)
        rows = (far, others, subjects)
        beyond = self._excess(Z, near, *rows) + _part(self.relations, Z, *rows)
        beyond += _part(self.local, near, *rows) + _part(self.lone, Z, far, others)
        return (far + beyond)[:, None]

    def score_aside(self, aside):
        """Scores (m, 1) of the :class:`cleaning.suspects.AsideRows`, as if they were new.

        Each is compared with the rows of other subjects, and a code with one copy less.
        """
        Z, subjects = aside.Z, aside.subjects
        far = self._far(Z, False, subjects)
        near = self._near(Z, subjects)
        rows = (far, True, subjects)
        beyond = self._excess(Z, near, *rows) + _part(self.local, near, *rows)
        beyond += _part(self.lone, Z, far, True)
        # Unlike those of the excesses, the reference rows of the relations are kept rows alone.
        related = _part(self.relations, Z, far, False, subjects)
        return (far + beyond + related)[:, None]

    def _near(self, Z, subjects):
        """Rows (n, d) with their five nearest, at which two measures look.

        Without these if subjects are known: then more have to be searched, and kept, for each row.
        """
        if self.local is None or subjects is not None:
            return Z
        return self.local.neighbours.searched(Z, NEAR + 1)  # one may be the row itself

    def _excess(self, Z, near, *rows):
        each = (excess(Z if excess.ranks else near, *rows) for excess in self.excesses)
        return DistanceExcess.weight * sum(each)

    def _far(self, Z, others, subjects):
        groups = None if subjects is None else (subjects, self.subjects)
        how = {"others": others, "nothing": 0.0, "coded": self.coded, "groups": groups}
        return np.log(self.neighbours.mean_distance(Z, FAR, **how) + 1e-6)

    def snapshot(self):
        """Arrays and plain values."""
        excesses = [excess.snapshot() for excess in self.excesses]
        relations = self.relations and self.relations.usual
        local, lone = (part and part.snapshot() for part in (self.local, self.lone))
        saved = {"reference": self.reference, "excesses": excesses}
        return saved | {"relations": relations, "local": local, "lone": lone}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        reference, relations = saved["reference"], saved.get("relations")
        excesses = [DistanceExcess.from_snapshot(excess) for excess in saved.get("excesses", ())]
        if relations is not None:
            relations = Relations(reference, usual=relations)
        local = saved.get("local")
        if local is not None:
            local = LocalExcess(excesses[0].neighbours, **local)
        lone = saved.get("lone") and LoneExcess.from_snapshot(saved["lone"])
        return cls(reference, excesses=excesses, relations=relations, local=local, lone=lone)


def _folds(Z, subjects):
    """Numbers (n,) of the folds of rows (n, d), with all rows of a subject (n,) in one."""
    return folds_by_value(Z, FOLDS) if subjects is None else subjects % FOLDS


def _part(excess, *rows):
    """What an excess adds for rows (n,), or 0 in a file that is older than it."""
    return 0.0 if excess is None else excess.weight * excess(*rows)


class Excess(ABC):
    """How much a measure of rows exceeds what is usual for rows that lie as far out.

    A line through the measures of the farthest rows says what is usual. Only what lies above it
    counts, so that a row that has company, or is unusual in its values alone, loses nothing.

    Args:
        usual: the line: where it starts, its height there, its slope. None: see :meth:`learn`.

    Attributes:
        weight: what the excess counts beside the distance.
    """

    weight: float

    def __init__(self, usual=None):
        self.usual = usual

    def learn(self, Z, far, subjects):
        """Learn what is usual from rows.

        Args:
            Z: (n, d) rows.
            far: (n,) their log distances to the ``FAR`` nearest reference rows.
            subjects: (n,) numbers, or None.
        """
        self._learn_usual(self._logs(Z, far, True, subjects), far)

    def _learn_usual(self, logs, far):
        """The line through the measures (n,) of rows with log distances ``far`` (n,)."""
        start = np.quantile(far, 1 - FARTHEST)
        beyond = far >= start
        far, logs = far[beyond] - start, logs[beyond]
        spread = np.square(far - far.mean()).sum()
        together = ((far - far.mean()) * (logs - logs.mean())).sum()
        slope = max(together / spread, 0.0) if spread > LEAST else 0.0
        self.usual = [float(start), float(logs.mean() - slope * far.mean()), float(slope)]

    def __call__(self, Z, far, others=False, subjects=None):
        """(n,), 0 or more, for rows (n, d) with log distances ``far`` (n,).

        ``others``: the rows are training rows, and codes count without themselves.
        """
        start, height, slope = self.usual
        usual = height + slope * np.maximum(far - start, 0.0)
        return np.maximum(self._logs(Z, far, others, subjects) - usual, 0.0)

    @abstractmethod
    def _logs(self, Z, far, others, subjects):
        """The measure: a logarithm (n,) of each row."""


class DistanceExcess(Excess):
    """How much another distance of a row exceeds what is usual.

    Args:
        reference: (r, d) rows to measure the distance to.
        coded: (r,) bool, see :class:`TolerantDistance`. Copies of all others are left out always,
            since rows that were set aside may be scored like new ones.
        subjects: (r,), see :class:`TolerantDistance`.
        k: number of the nearest reference rows.
        ranks: the :class:`NormalScores` that the reference rows went through, and others go
            through; None: the values themselves are compared.
        usual: see :class:`Excess`.

    Attributes:
        apart: the same with ranks that lack a fold of the training rows, for each fold, while
            training rows are scored; else empty.
    """

    weight = EXCESS
    apart = ()
    CLOSEST = 0.05  # least distance between values, as a share of that to the ``FAR`` nearest

    def __init__(self, reference, coded, subjects, k, ranks=None, usual=None):
        super().__init__(usual)
        self.reference = np.asarray(reference)
        self.coded = None if coded is None else np.asarray(coded)
        self.subjects = subjects
        self.k = k
        self.ranks = ranks
        self.neighbours = Neighbours(self.reference)

    def _logs(self, Z, far, others, subjects):
        """Logarithms (n,) of the rows' distances."""
        if others and self.apart:
            logs, fold = np.empty(len(Z)), _folds(Z, subjects)
            for number in np.unique(fold):
                own = fold == number
                rows = (Z[own], far[own], others, *some_of(own, subjects))
                logs[own] = self.apart[number]._logs(*rows)
            return logs
        groups = None if subjects is None else (subjects, self.subjects)
        rows = Z if self.ranks is None else self.ranks(Z)
        how = {"others": True, "nothing": 0.0, "coded": self.coded, "of_codes": int(others)}
        distance = self.neighbours.mean_distance(rows, self.k, groups=groups, **how) + 1e-6
        if self.ranks is None:  # the logarithm of copies' distance 0 would bend the line
            distance = np.maximum(distance, self.CLOSEST * np.exp(far))
        return np.log(distance)

    def snapshot(self):
        """Arrays and plain values."""
        own = {name: getattr(self, name) for name in ("reference", "coded", "k", "usual")}
        return own | {"ranks": self.ranks and self.ranks.snapshot()}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        ranks = saved["ranks"] and NormalScores(**saved["ranks"])
        return cls(subjects=None, **saved | {"ranks": ranks})


class LocalExcess(Excess):
    """How much more isolated a row is than its neighbours are, beyond what is usual.

    A row beside a dense group is nearer to its neighbours than many normal rows are to theirs, but
    these are nearer still to each other. The measure is the logarithm of a local outlier factor
    (Breunig et al. 2000) of plain mean distances. Copies of a row count once: between them no
    distance is small enough.

    The measure counts more if the training rows' have a long upper tail that is not the sparse
    rows' alone. In one cloud that thins out, rows are the more isolated the farther out they are,
    which their distance tells as well. Among groups of several densities, or of few rows each,
    distances tell little, and single rows stand out by this measure.

    Args:
        neighbours: the :class:`geometry.Neighbours` among the reference rows.
        subjects: (r,), see :class:`TolerantDistance`.
        own: (r,) logarithms of the reference rows' own distances; None: computed.
        usual: see :class:`Excess`.
        weight: what the excess counts; in older files it is the least.
    """

    def __init__(self, neighbours, subjects=None, own=None, usual=None, weight=LOCAL):
        super().__init__(usual)
        self.neighbours = neighbours
        self.subjects = subjects
        self.weight = weight
        if own is None:
            nothing = np.zeros(len(neighbours.reference))
            own = self._distances(neighbours.reference, subjects, nothing)[0]
            own = own[neighbours.distinct][neighbours.group]  # copies may be of several subjects
        self.own = own

    def learn(self, Z, far, subjects):
        """As :meth:`Excess.learn`; learns what the excess counts, too."""
        own, sparse = self._distances(Z, subjects, self.own)
        measures = own - sparse
        self._learn_usual(measures, far)
        if min(np.ptp(measures), np.ptp(sparse)) > SAME:
            more = np.interp(skew(measures), SKEWED, (0, 1))
            more *= np.interp(np.corrcoef(measures, sparse)[0, 1], OF_DENSITY, (1, 0))
            self.weight = float(LOCAL + (MOST_LOCAL - LOCAL) * more)

    def _logs(self, Z, far, others, subjects):
        """Logarithms (n,) of the ratios."""
        own, of_neighbours = self._distances(Z, subjects, self.own)
        return own - of_neighbours

    def _distances(self, Z, subjects, beside):
        """Logarithms (n,) of the rows' distances, and means of ``beside`` (r,) of their nearest."""
        groups = None if subjects is None else (subjects, self.subjects)
        how = {"others": True, "nothing": 0.0, "groups": groups, "beside": beside}
        distance, of_neighbours = self.neighbours.mean_distance(Z, NEAR, **how)
        return np.log(distance + LEAST), of_neighbours

    def snapshot(self):
        """Arrays and plain values; the reference rows are those of another :class:`Excess`."""
        return {"own": self.own, "usual": self.usual, "weight": self.weight}


class LoneExcess(Excess):
    """How far out a row is in the one column where it is farthest out, beyond what is usual.

    Args:
        largest: a :class:`detection.largest_value.LargestValue`.
        usual: see :class:`Excess`.

    Attributes:
        among: (m, d) the rows that the scaler learned from, while training rows are scored.
    """

    weight = LONE
    among = None

    def __init__(self, largest, usual=None):
        super().__init__(usual)
        self.largest = largest

    def _logs(self, Z, far, others, subjects):
        """Logarithms (n,) of the largest values."""
        return self.largest(Z, self.among if others else None)

    def snapshot(self):
        """Arrays and plain values."""
        return self.largest.snapshot() | {"usual": self.usual}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`."""
        return cls(LargestValue.from_snapshot(saved), saved["usual"])


class Relations(Excess):
    """How much farther out a row lies by all columns together than by each on its own.

    Where columns depend on each other, such as two sensors of one quantity or parts and their sum,
    a row that breaks the dependence may be usual in every value and near to its neighbours. The
    measure is the ratio of two lengths of the row's difference from the mean: in coordinates of
    equal variance along every direction, and in units of each column's spread. What is far out in
    single columns, or is a rare text, is so in both.

    Args:
        reference: (r, d) rows that give mean and variances.
        coded, subjects: see :class:`TolerantDistance`. A training row is measured without its own
            copies, or one of them if they are codes, and without the rows of its subject.
        usual: see :class:`Excess`.
    """

    weight = RELATIONS

    def __init__(self, reference, coded=None, subjects=None, usual=None):
        super().__init__(usual)
        self.whitening = Whitening(reference)
        some = self.whitening.some
        self.rows = np.asarray(reference)[some]
        self.coded, self.subjects = some_of(some, coded, subjects)
        self.mean = self.whitening(self.whitening.mean[None])
        self.spread = _spread(self.rows.var(0, dtype=np.float64))

    def _logs(self, Z, far, others, subjects):
        """Logarithms (n,) of the ratios."""
        Z = np.asarray(Z, dtype=np.float64)
        if others and subjects is None:
            m = self._copies_of(Z)
            together = self.whitening.square_without(Z, m)
            alone = self._alone_without(Z, m[:, None])
        else:
            n = len(Z)
            away = (self.whitening(filled(Z, VECTOR, 1)) - self.mean)[:n].numpy()
            together = np.square(away).sum(1)
            alone = np.square((Z - self.whitening.mean) / self.spread)
            if subjects is not None:
                together, alone = self._without_subjects(Z, away, together, alone, subjects)
        return (np.log(together + LEAST) - np.log(alone.sum(1) + LEAST)) / 2

    def _copies_of(self, Z):
        """How many reference rows are left out as copies of each row of Z (n, d)."""
        rows = Neighbours(self.rows)
        distance, index = rows.nearest(Z, COPIES)
        counts = rows.counts()
        if self.coded is not None:
            counts = np.where(self.coded[rows.distinct], 1, counts)
        m = np.where(distance <= ROUNDING * np.sqrt(Z.shape[1]), counts[index], 0).sum(1)
        return np.where(m < len(self.rows), m, 0)

    def _alone_without(self, Z, m):
        """Squares (n, d) in units of each column's spread, without m (n, 1) own copies."""
        off, stay = Z - self.whitening.mean, len(self.rows) / (len(self.rows) - m)
        moved = m / (len(self.rows) - m)
        variance = stay * (self.rows.var(0, dtype=np.float64) - moved * np.square(off))
        return np.square(stay * off / _spread(np.maximum(variance, 0.0)))

    def _without_subjects(self, Z, away, together, alone, subjects):
        """Both squared lengths without all rows of each row's subject (Woodbury's formula).

        Args:
            Z: (n, d) rows.
            away: (n, d) their whitened differences from the mean.
            together, alone: (n,) and (n, d) squared lengths with the subject's rows.
            subjects: (n,)
        """
        together, alone = together.copy(), alone.copy()
        n, reference = len(self.rows), (self.whitening(self.rows) - self.mean).numpy()
        off = self.rows.astype(np.float64) - self.whitening.mean
        sums, squares = off.sum(0), np.square(off).sum(0)
        for subject in np.unique(subjects):
            own = self.subjects == subject
            m = int(own.sum())
            if not 0 < m < n:
                continue
            of_it = subjects == subject
            moved = reference[own].sum(0) / (n - m)  # of the mean, to the other side
            gone = np.concatenate([reference[own], np.sqrt(n - m) * moved[None]])  # (m + 1, d)
            rows = away[of_it] + moved
            along = rows @ gone.T
            inner = n * np.eye(m + 1) - gone @ gone.T
            more = (along * np.linalg.solve(inner, along.T).T).sum(1)
            together[of_it] = (np.square(rows).sum(1) + more) * (n - m) / n
            mean = (sums - off[own].sum(0)) / (n - m)  # of the other rows
            variance = (squares - np.square(off[own]).sum(0)) / (n - m) - np.square(mean)
            away_of_it = Z[of_it] - self.whitening.mean - mean
            alone[of_it] = np.square(away_of_it / _spread(np.maximum(variance, 0.0)))
        return together, alone


def _spread(variance):
    """Standard deviations (.., d) for columns' variances (.., d), with the ridge of a whitening."""
    return np.sqrt(variance + Whitening.RIDGE * variance.mean(-1, keepdims=True) + LEAST)
