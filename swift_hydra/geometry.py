"""Distances and directions of rows: exact nearest neighbours, copies, the effective rank.

Rows are rounded to a fine grid of whole numbers first. Sums of their products are then whole
numbers that float64 holds exactly, in whatever order they are added up. So a copy is at distance 0,
there is no cancellation error, and a row's distances are the same to the bit whichever rows are
queried with it.

Shapes: n rows, d features, m distinct reference rows.
"""

import numpy as np
import scipy.linalg
from scipy.special import boxcox, inv_boxcox

from swift_hydra.compiled import MORE, available, nearest_rows

BEND = 5.0  # bound of standardised values, see data/scaler.py
BOUND = 0.98 * BEND  # bound of moved or decoded values: 25 standard deviations, unbent
FINEST = 19  # a grid step is 2^-FINEST, coarser if d is large
MOST_FAR = 48.0  # bound of the extra coordinate for extreme values
FAR_FROM = 2.0  # the extra coordinate starts at so many times BEND, in standard deviations
BLOCK_NUMBERS = 2**20  # distances held at once: bounds memory, does not change any value
DIRECTIONS = 4  # random directions along which the search for near copies compares rows
MOST_BESIDE = 2048  # rows that follow a row and are compared with it
MOST_PAIRS = 32  # most pairs per row that may be copies: more are near by chance
ALWAYS_PAIRS = 2_000_000  # so many pairs are compared, whatever the number of rows
# Standard deviations by which a value may differ after a table was written and read again.
ROUNDING = 2.0**-13
MANY = 256  # from more neighbours the mean distance is computed without sorting them
# So many more neighbours are searched if copies of the row take the places of those found.
BEYOND_COPIES = 32
LARGE = 256  # reference rows of a subject, beyond which its rows search among the others alone
# With more columns, directions are computed from so many rows: no work is cubic in the columns.
WIDE = 1024
VECTOR = 16  # rows, columns and directions are padded to multiples of this in products


def bend(u):
    """Maps standard deviations into +-BEND, strictly increasing: u / sqrt(1 + (u/5)^2)."""
    return u / np.sqrt(1.0 + np.square(u / BEND))


def unbend(z):
    """The inverse of :func:`bend`, up to 15,800: float32 resolves no larger values."""
    z = np.asarray(z, dtype=np.float64)
    return z / np.sqrt(np.maximum(1.0 - np.square(z / BEND), 1e-7))


def straightened(ratio, start, power, end):
    """Box and Cox's power (1964) of ``ratio`` from ``start`` to ``end``, beyond these its tangents.

    ``ratio``: (.., d) values in units of their median; the others: (d,) or numbers. ``end`` may be
    infinite.
    """
    power_of = boxcox(np.clip(ratio, start, end), power)
    power_of += np.minimum(ratio - start, 0.0) * start ** (power - 1)
    ends = np.isfinite(end)  # a ratio may be infinite itself: a value beside a tiny median
    beyond = np.maximum(ratio - np.where(ends, end, 0.0), 0.0)
    return power_of + np.where(ends, beyond, 0.0) * end ** (power - 1)


def skewed_again(straight, start, power, end):
    """The inverse of :func:`straightened`."""
    first, last = boxcox(start, power), boxcox(end, power)
    ratio = inv_boxcox(np.clip(straight, first, last), power)
    ratio += np.minimum(straight - first, 0.0) * start ** (1 - power)
    slope = np.where(np.isinf(end), 0.0, end) ** (1 - power)
    return ratio + np.maximum(straight - last, 0.0) * slope


def on_grid(Z):
    """Standardised rows as whole numbers, with an extra coordinate for extreme values: (n, d + 1).

    Bent values hardly differ beyond ten standard deviations. The last coordinate keeps distances
    there: it is 0 within ten standard deviations and grows with the logarithm beyond.

    Args:
        Z: (n, d) rows within +-BEND.

    Returns:
        (n, d + 1) float64 of whole numbers, and the length of a grid step in standard deviations.
    """
    Z = np.asarray(Z, dtype=np.float64)
    # The largest squared distance is below 4 d 2^(6 + 2 bits): it has to stay below 2^53.
    bits = min(FINEST, int(45 - np.log2(Z.shape[1])) // 2)
    beyond = np.log(np.maximum(np.abs(unbend(Z)) / BEND - (FAR_FROM - 1.0), 1.0))
    far = np.minimum(BEND * np.sqrt(np.square(beyond).sum(1)), MOST_FAR)
    grid = np.rint(np.column_stack([Z, far]) * 2.0**bits)
    return grid + 0.0, 2.0**-bits  # -0.0 and 0.0 are one number


def copies(Z, step=None):
    """Which rows are equal, or nearly equal: (n,) group numbers from 0.

    Args:
        Z: (n, d) rows.
        step: largest difference, in standard deviations, between a value and that of the row that
            leads the group; None groups rows that are equal on the grid.
    """
    size = max(BLOCK_NUMBERS // Z.shape[1], 1)
    blocks = (on_grid(Z[start : start + size])[0] for start in range(0, len(Z), size))
    group = _equal(blocks)
    if step is None:
        return group
    first = np.unique(group, return_index=True)[1]
    rows, own = on_grid(np.asarray(Z)[first])
    leader = _leaders(rows * own, step)
    return np.unique(leader, return_inverse=True)[1][group]


def twins(Z, kept):
    """The kept row that each of the m other rows is a copy of (up to rounding), or -1: (m,).

    Args:
        Z: (n, d) rows.
        kept: (n,) bool. The result counts the kept rows from 0.
    """
    group = copies(Z, ROUNDING)
    of_group = np.full(len(Z), -1)
    of_group[group[kept]] = np.arange(kept.sum())
    return of_group[group[~kept]]


def folds_by_value(Z, n_folds):
    """Numbers (n,) of folds of rows (n, d), from 0: equal rows are in one, whatever is beside."""
    return (_sums(on_grid(Z)[0])[:, 0] >> np.uint64(32)).astype(np.int64) % n_folds


def _sums(rows):
    """Two random weighted sums of 64 bits of each row of whole numbers (n, c): (n, 2)."""
    numbers = rows.astype(np.int64).view(np.uint64)  # sums wrap around, which is harmless
    factors = np.random.default_rng(0).integers(2**64, size=(rows.shape[1], 2), dtype=np.uint64)
    return numbers @ factors


def _equal(blocks):
    """Which rows, given in blocks (.., d) of whole numbers, are equal: (n,) group numbers from 0.

    Rows are compared by two random weighted sums of 64 bits each; the chance that rows which differ
    are taken for equal is 2^-80.
    """
    sums = [np.empty((0, 2), dtype=np.uint64), *map(_sums, blocks)]
    sums = np.concatenate(sums)  # (n, 2)
    order = np.lexsort(sums.T)
    new = np.ones(len(order), dtype=bool)
    new[1:] = (sums[order[1:]] != sums[order[:-1]]).any(1)
    # Groups are numbered by their first rows: the sort is stable.
    place = np.empty(int(new.sum()), dtype=np.int64)
    place[np.argsort(order[new])] = np.arange(len(place))
    group = np.empty(len(order), dtype=np.int64)
    group[order] = place[np.cumsum(new) - 1]
    return group


def _leaders(rows, step):
    """For each of m distinct rows (m, d), the row within ``step`` that leads its group: (m,).

    Such rows are also close in any projection, so candidates are rows that follow each other along
    a random direction. (A grid would separate many of them, as one of d values is often close to a
    border.) If rows are so dense that most have such neighbours by chance, a grid is used after
    all.
    """
    m, d = rows.shape
    most = max(m, min(MOST_PAIRS * m, ALWAYS_PAIRS))
    n_near = 0
    directions = np.random.default_rng(0).normal(size=(d, DIRECTIONS))
    along = rows @ (directions / np.linalg.norm(directions, axis=0))  # (m, DIRECTIONS)
    order = np.argsort(along[:, 0], kind="stable")
    along = along[order]
    reach = 1.001 * step * np.sqrt(d)  # distance between rows if all values differ by a step
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for offset in range(1, m):
        near = np.flatnonzero(along[offset:, 0] - along[:-offset, 0] <= reach)
        if not len(near):
            break
        n_near += len(near)
        for other in along.T[1:]:
            near = near[np.abs(other[near + offset] - other[near]) <= reach]
        for some in np.array_split(near, len(near) * d // BLOCK_NUMBERS + 1):
            apart = np.abs(rows[order[some + offset]] - rows[order[some]]).max(axis=1, initial=0.0)
            pairs.append(np.column_stack([some, some + offset])[apart <= step])
        if offset > MOST_BESIDE or n_near > 8 * most or sum(map(len, pairs)) > most:
            return _equal([np.rint(rows / step) + 0.0])
    leader = np.arange(m)
    pairs = np.concatenate(pairs)
    for a, b in pairs[np.lexsort(pairs.T[::-1])].tolist():
        if leader[a] == a and leader[b] == b:
            leader[b] = a
    out = np.empty(m, dtype=np.int64)
    out[order] = order[leader]
    return out


class Searched:
    """Rows whose nearest reference rows were searched already; parts of them are Searched, too.

    Args:
        rows: (n, d).
        by: the :class:`Neighbours` that searched.
        distance: (n, k), see :meth:`Neighbours.nearest`.
        index: (n, k).
    """

    def __init__(self, rows, by, distance, index):
        self.rows = rows
        self.by = by
        self.distance = distance
        self.index = index

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, some):
        return Searched(self.rows[some], self.by, self.distance[some], self.index[some])


class Neighbours:
    """Search for the nearest reference rows.

    Args:
        reference: (r, d) standardised rows; every copy of a row counts.

    Attributes:
        distinct: (m,) numbers of reference rows, the first of each group of copies, in random
            order.
        group: (r,) the place in ``distinct`` of the row that each reference row equals.
    """

    def __init__(self, reference):
        self.reference = np.ascontiguousarray(reference, dtype=np.float32)
        rows, self.step = on_grid(self.reference)
        _, distinct, group = np.unique(
            copies(self.reference), return_index=True, return_inverse=True
        )
        # Shuffled, as rows that follow each other in a table are often neighbours of the same rows.
        place = np.random.default_rng(0).permutation(len(distinct))
        self.distinct = distinct[np.argsort(place)]
        self.group = place[group]
        self._rows = np.ascontiguousarray(rows[self.distinct])
        self._square = np.square(self._rows).sum(1)
        self._longest = np.sqrt(self._square.max(initial=0.0)) * self.step
        # So that one product gives |r|^2 - 2 x r.
        in_units = np.column_stack([self._rows * self.step, self._square * self.step**2])
        self._rounded = in_units.T.astype(np.float32)

    def nearest(self, X, k):
        """The nearest distinct reference rows; ties go to the first.

        Args:
            X: (n, d) rows, or the :class:`Searched` ones of :meth:`searched`.
            k: how many.

        Returns:
            Ascending distances and places in ``distinct``: (n, min(k, m)) each.
        """
        m = len(self._rows)
        k = min(k, m)
        if isinstance(X, Searched):
            if X.by is self and k <= X.index.shape[1]:
                return X.distance[:, :k], X.index[:, :k]
            X = X.rows
        square = np.empty((len(X), k))
        index = np.empty((len(X), k), dtype=np.int64)
        size = max(BLOCK_NUMBERS // max(m, 1), 16)
        for start in range(0, len(X), size):
            part = slice(start, start + size)
            rows = on_grid(X[part])[0]
            unsure = np.ones(len(rows), dtype=bool)
            if available() and m >= k + MORE:
                square[part], index[part], unsure = self._rounded_first(rows, k)
            if unsure.any():
                at = start + np.flatnonzero(unsure)
                square[at], index[at] = self._among_all(rows[unsure], k)
        return np.sqrt(square) * self.step, index

    def searched(self, X, k):
        """Rows X (n, d) with their k nearest, for several measures of the same neighbours."""
        return Searched(X, self, *self.nearest(X, k))

    def _rounded_first(self, rows, k):
        """Search by float32 products, with exact distances of the candidates found.

        Returns squared distances and places (n, k) each, and the rows (n,) bool for which rounding
        may have hidden a neighbour.
        """
        x = rows * self.step
        factor = np.concatenate([-2 * x, np.ones((len(x), 1))], axis=1).astype(np.float32)
        near = factor @ self._rounded
        square, index, bound = nearest_rows(near, rows, self._rows, k)
        # An upper bound of the rounding error of float32 sums of d + 2 products.
        length = np.sqrt(np.square(x).sum(1))
        error = 2.0**-23 * (len(self._rounded) + 8) * self._longest * (2 * length + self._longest)
        enough = square[:, -1] * self.step**2 - np.square(length) < bound - error
        return square, index, ~enough

    def _among_all(self, rows, k):
        """Squared distances and places (n, k) by exact products."""
        square = self._square - 2 * rows @ self._rows.T
        at = np.broadcast_to(np.arange(len(self._rows)), square.shape)
        if k < square.shape[1]:
            last = np.partition(square, k - 1, axis=1)[:, k - 1 : k]
            nearer = square < last
            level = square == last
            missing = k - nearer.sum(1, keepdims=True)
            chosen = nearer | (level & (np.cumsum(level, axis=1) <= missing))
            at = np.nonzero(chosen)[1].reshape(len(rows), k)
        near = np.take_along_axis(square, at, axis=1)
        order = np.argsort(near, axis=1, kind="stable")
        near = np.take_along_axis(near, order, axis=1) + np.square(rows).sum(1)[:, None]
        return near, np.take_along_axis(at, order, axis=1)

    def counts(self, used=None):
        """Number of copies (m,) of each distinct row; if given, only among rows ``used`` (r,)."""
        group = self.group if used is None else self.group[used]
        return np.bincount(group, minlength=len(self.distinct))

    def mean_distance(
        self, X, k, others=False, nothing=np.nan, coded=None, groups=None, of_codes=1, beside=None
    ):
        """Mean distance to the k nearest reference rows, (n,).

        Args:
            X: (n, d) rows, or the :class:`Searched` ones of :meth:`searched`.
            k: number of neighbours, copies counted.
            others: leave out the row's own copies, up to rounding.
            nothing: result if no reference row is left.
            coded: (r,) bool, codes, of which only ``of_codes`` copies are left out, see
                :class:`cleaning.leave_out.LeaveOut`; None: all copies are left out.
            groups: subjects (n,) of X and (r,) of the reference rows: a row's own subject is left
                out; None: no subjects.
            of_codes: 1 for reference rows themselves, 0 for new rows.
            beside: (r,) numbers of the reference rows, equal for copies. If given, copies count
                once, and the result is (2, n), with means of these over the same neighbours.
        """
        beyond = ROUNDING * np.sqrt(self.reference.shape[1]) if others else None
        counts = self.counts() if beside is None else np.ones(len(self.distinct), dtype=np.int64)
        left = np.zeros_like(counts)
        if coded is not None:
            left = np.where(coded[self.distinct], counts - of_codes, 0)
        of_rows, own, more = np.full(len(X), -1), None, 0
        if groups is not None:
            of_rows, own = groups[0], self.groups_of(groups[1])
            more = largest(own)  # all nearest rows may be of the row's own subject
            if more > LARGE:
                how = {"others": others, "nothing": nothing, "of_codes": of_codes}
                return self._mean_beside_large(X, k, groups, own, coded, beside, how)
        out = np.empty((1 if beside is None else 2, len(X)))
        if others and k > MANY and counts.max() == 1 and own is None and beside is None:
            size = max(BLOCK_NUMBERS // len(self.distinct), 16)
            for start in range(0, len(X), size):
                part = slice(start, start + size)
                out[0, part] = self._mean_of_many(X[part], k, beyond, nothing)
            return out[0]

        def mean_of(rows, of_rows, searched):
            distance, index = self.nearest(rows, searched)
            n = counts[index]
            if own is not None:
                n = without_own(n, own[index], of_rows)
            share = shares(distance, n, k, beyond, np.minimum(left[index], n))
            numbers = [distance] if beside is None else [distance, beside[self.distinct][index]]
            means = [mean_of_first(number, share, nothing) for number in numbers]
            return np.stack(means), share.sum(1) < k

        size = max(BLOCK_NUMBERS // (k + 1 + more), 256)
        for start in range(0, len(X), size):
            part = slice(start, start + size)
            mean, short = mean_of(X[part], of_rows[part], k + 1 + more)
            if others and short.any() and k + 1 + more < len(self.distinct):
                again = (X[part][short], of_rows[part][short], k + BEYOND_COPIES + more)
                mean[:, short] = mean_of(*again)[0]
            out[:, part] = mean
        return out[0] if beside is None else out

    def _mean_beside_large(self, X, k, groups, own, coded, beside, how):
        """:meth:`mean_distance` if groups are large: their rows search among the others only.

        Otherwise every row would need the whole reference sorted to get past its own group.

        Args:
            X, k, groups, coded, beside: as there.
            own: groups of the distinct rows, see :meth:`groups_of`.
            how: its other arguments, a dict.
        """
        of_rows, of_reference = map(np.asarray, groups)
        shape = len(X) if beside is None else (2, len(X))
        out = np.full(shape, how["nothing"], dtype=np.float64)
        number, counts = np.unique(own[own >= 0], return_counts=True)
        large = number[counts > LARGE]
        for group in large:
            rows, kept = of_rows == group, own[self.group] != group
            if rows.any() and kept.any():
                of_others, numbers = some_of(kept, coded, beside)
                without = Neighbours(self.reference[kept])
                told = how | {"coded": of_others, "beside": numbers}
                out[..., rows] = without.mean_distance(X[rows], k, **told)
        rest = ~np.isin(of_rows, large)
        groups = of_rows[rest], np.where(np.isin(of_reference, large), -1, of_reference)
        told = how | {"coded": coded, "groups": groups, "beside": beside}
        out[..., rest] = self.mean_distance(X[rest], k, **told)
        return out

    def groups_of(self, groups):
        """Groups (m,) of the distinct rows, given those of the reference rows (r,).

        -1 if a row has copies in several groups. None stays None.
        """
        if groups is None:
            return None
        groups = np.asarray(groups)
        of_distinct = groups[self.distinct]
        several = np.zeros(len(of_distinct), dtype=bool)
        several[self.group[groups != of_distinct[self.group]]] = True
        return np.where(several, -1, of_distinct)

    def _mean_of_many(self, X, k, beyond, nothing):
        """:meth:`mean_distance` to others if the reference has no copies; does not sort: (n,)."""
        rows = on_grid(X)[0]
        square = self._square - 2 * rows @ self._rows.T + np.square(rows).sum(1)[:, None]
        square[square <= (beyond / self.step) ** 2] = np.inf  # (n, m)
        k = min(k, square.shape[1])
        near = np.partition(square, k - 1, axis=1)[:, :k]
        found = np.isfinite(near)
        total = np.sqrt(np.where(found, near, 0.0)).sum(1) * self.step
        return np.where(found.any(1), total / np.maximum(found.sum(1), 1), nothing)


def some_of(rows, *arrays):
    """The rows of each array that ``rows`` selects; None stays None."""
    return [None if array is None else array[rows] for array in arrays]


def largest(groups):
    """Size of the largest group, from group numbers (m,); -1 is no group."""
    groups = groups[groups >= 0]
    return int(np.unique(groups, return_counts=True)[1].max(initial=0))


def without_own(counts, of_neighbours, of_rows):
    """Counts (n, ..) of neighbours, set to 0 for those of the row's own group.

    Args:
        counts: (n, ..) of the neighbours.
        of_neighbours: (n, ..) their groups.
        of_rows: (n,) the rows' groups; -1 is no group.
    """
    of_rows = np.reshape(of_rows, (-1, *[1] * (counts.ndim - 1)))
    return np.where((of_neighbours == of_rows) & (of_rows >= 0), 0, counts)


def shares(distance, counts, k, beyond=None, left=0):
    """How often each of the sorted neighbours counts among the k nearest: (n, K).

    A row sums to k, or to less if it has fewer neighbours.

    Args:
        distance: (n, K) ascending.
        counts: (n, K) number of copies of each neighbour.
        k: how many.
        beyond: leave out neighbours up to this distance, the row's own copies; None leaves out
            none.
        left: (n, K) number of copies that still count of a neighbour that is left out.
    """
    counts = counts if beyond is None else np.where(distance > beyond, counts, left)
    before = np.cumsum(counts, axis=1) - counts
    return np.clip(k - before, 0, counts)


def mean_of_first(values, share, nothing=np.nan):
    """Means of values (n, K), weighted by :func:`shares`; ``nothing`` if all weights are 0."""
    total = share.sum(1)
    return np.where(total > 0, (values * share).sum(1) / np.maximum(total, 1), nothing)


def share_nearer(rows, to, than):
    """Share of rows (n, d) nearer to one of ``to`` (r, d) than to any of ``than`` (s, d)."""
    distances = [Neighbours(some).nearest(rows, 1)[0] for some in (to, than)]
    return float((distances[0] < distances[1]).mean())


def squared_distances(a, b):
    """Squared distances of rows a (n, d) and b (m, d), tensors: (n, m) float64, differentiable.

    In float64 throughout: cancellation leaves errors of 1e-15 of the rows' squared length.
    """
    a = a.double()
    b = b.double()
    square = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    return square.clamp(min=0.0)


def effective_rank(X):
    """How many directions the rows X (n, d) span: exp(entropy of their covariance spectrum)."""
    X = np.asarray(X, dtype=np.float64)
    X = X - X.mean(0)
    gram = X @ X.T if len(X) < X.shape[1] else X.T @ X
    values = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    share = values / max(values.sum(), 1e-300)
    share = share[share > 1e-15]  # the rest is rounding errors
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 1.0


def filled(a, rows, columns):
    """An array (n, m), padded with zeros to multiples of ``rows`` and ``columns``.

    Products of padded arrays use whole vector registers; otherwise their rounding would depend on a
    row's place in its batch.
    """
    n, m = a.shape
    return np.pad(a, ((0, -n % rows), (0, -m % columns)))


def along(rows, directions):
    """Rows (n, d) along directions (r, d): (n, r), each to the bit whatever rows are beside it."""
    product = filled(rows, VECTOR, VECTOR) @ filled(directions.T, VECTOR, VECTOR)
    return product[: len(rows), : len(directions)]


def spread_over(n, most):
    """Numbers of at most ``most`` of n rows: (min(n, most),), ascending.

    One is drawn, always the same, from each of so many equal stretches. At equal distances, of rows
    of two machines in turn all might be one machine's.
    """
    if n <= most:
        return np.arange(n)
    start = np.arange(most) * n // most
    rows = np.random.RandomState(0).randint(start, np.append(start[1:], n))
    rows[[0, -1]] = 0, n - 1
    return rows


def principal_axes(rows):
    """Standard deviations (r,) of centred rows (n, d) and principal axes (r, d), largest first.

    numpy's algorithm is fast but does not converge on some matrices; the older one (gesvd) does.
    """
    rows = rows / np.sqrt(len(rows))
    try:
        _, root, axes = np.linalg.svd(rows, full_matrices=False)
    except np.linalg.LinAlgError:
        _, root, axes = scipy.linalg.svd(rows, full_matrices=False, lapack_driver="gesvd")
    return root, axes
