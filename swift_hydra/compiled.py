"""Compiling with numba (an optional extra): options, threads, and kernels for distances of rows.

:mod:`scan.numba_kernels` has the kernels of the scan. Every kernel works on the rows from ``low``
to ``high`` and releases the GIL. A row's result does not depend on the rows beside it.

Shapes: n rows, d features, m reference rows.
"""

import contextlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np

try:
    from llvmlite import ir
    from numba import config, njit, types
    from numba.core.caching import FunctionCache
    from numba.extending import intrinsic

    if config.DISABLE_JIT:  # NUMBA_DISABLE_JIT=1
        njit = None
except ImportError:
    njit = None  # plain NumPy, SciPy and PyTorch are used

SMALL = 2**21  # with fewer operations, one thread is faster than two
LANE = 16  # most distances in a lane, whose minimum decides whether any of them is looked at
MORE = 8  # so many more neighbours than asked for are computed exactly


def available():
    """Whether numba is installed and may compile."""
    return njit is not None


@cache
def _pool(process):
    return ThreadPoolExecutor(max(2, os.cpu_count() or 2))


def parts(n_rows, work):
    """Split rows over the threads that are worth starting: [(low, high), ...].

    Args:
        n_rows: number of rows.
        work: total number of operations.
    """
    threads = 1
    if work > SMALL:
        import torch  # here, so that reading tables does not import it

        threads = min(torch.get_num_threads(), n_rows)
    bounds = [n_rows * i // threads for i in range(threads + 1)]
    return list(itertools.pairwise(bounds))


def run(kernel, shares, out, arguments):
    """Call ``kernel(out, low, high, *arguments)`` for every share, in threads if there are several.

    Args:
        kernel: a compiled function, which releases the GIL.
        shares: (low, high) of each share.
        out: an array of which each call writes or reads its own rows.
        arguments: for each share, a list of further arguments.
    """
    if len(shares) == 1:
        kernel(out, *shares[0], *arguments[0])
        return
    pool = _pool(os.getpid())
    jobs = [
        pool.submit(kernel, out, *share, *each)
        for share, each in zip(shares, arguments, strict=True)
    ]
    for job in jobs:
        job.result()


if available():
    f32 = np.float32

    # Sums may be reordered and multiply-adds fused; NaN and infinity keep their meaning.
    FAST = {"reassoc", "contract", "nsz", "arcp"}

    class _Cache(FunctionCache):
        """numba's cache on disk: if it is damaged or cannot be written, functions are compiled."""

        def load_overload(self, *about):
            try:
                return super().load_overload(*about)
            except Exception:  # a damaged pickle raises anything
                with contextlib.suppress(Exception):
                    self.flush()  # else it would be met in every process
                return None

        def save_overload(self, *about):
            with contextlib.suppress(Exception):  # such as a full disk
                super().save_overload(*about)

    def compiled(function, fastmath=FAST, **more):
        """Compile a kernel that is called from Python, and cache it on disk."""
        options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy", **more}
        try:
            made = njit(cache=True, **options)(function)
            made._cache = _Cache(function)
        except RuntimeError:
            # Neither the code's folder nor the home can be written: compile in every process.
            made = njit(**options)(function)
        return made

    # Inlined into every kernel that calls it, which is faster, and makes rounding the same whether
    # a kernel is compiled in this process or was cached by an earlier one: a separate function
    # would be linked differently in the two cases.
    inlined = partial(compiled, forceinline=True)
    # The same with operations in the order in which they are written.
    in_order = partial(inlined, fastmath={"contract"})

    @intrinsic
    def _power_of_two(typing, k):
        """2 ** k for a whole float32 k in [-126, 127], made from its bits instead of by a call."""

        def code(context, builder, signature, arguments):
            exponent = builder.fptosi(arguments[0], ir.IntType(32))
            bits = builder.shl(builder.add(exponent, ir.IntType(32)(127)), ir.IntType(32)(23))
            return builder.bitcast(bits, ir.FloatType())

        return types.float32(types.float32), code

    @inlined
    def exp(x):
        """e ** x for float32, relative error below 3e-7.

        x is clipped to -87 and 87, which keeps the result in float32's range.
        """
        x = f32(-87.0) if x < f32(-87.0) else x
        x = f32(87.0) if x > f32(87.0) else x
        k = np.floor(x * f32(1.4426950408889634) + f32(0.5))
        # ln 2 is split in two parts, so that k times the first is exact.
        r = (x - k * f32(0.693359375)) - k * f32(-2.12194440e-4)
        p = f32(1 / 5040)
        p = p * r + f32(1 / 720)
        p = p * r + f32(1 / 120)
        p = p * r + f32(1 / 24)
        p = p * r + f32(1 / 6)
        p = p * r + f32(0.5)
        return ((p * r + f32(1.0)) * r + f32(1.0)) * _power_of_two(k)

    # --- distances --------------------------------------------------------------------------------

    @inlined
    def _distances(y, x, columns, squared):
        """Write the distances of four rows x (4, d) to columns (d, m) to y (4, m).

        They are sums of squared differences if ``squared``, else of absolute differences.
        """
        y[:] = f32(0.0)
        for j in range(len(columns)):
            x0, x1, x2, x3 = x[0, j], x[1, j], x[2, j], x[3, j]
            if squared:
                for c in range(y.shape[1]):
                    y[0, c] += (x0 - columns[j, c]) ** 2
                    y[1, c] += (x1 - columns[j, c]) ** 2
                    y[2, c] += (x2 - columns[j, c]) ** 2
                    y[3, c] += (x3 - columns[j, c]) ** 2
            else:
                for c in range(y.shape[1]):
                    y[0, c] += abs(x0 - columns[j, c])
                    y[1, c] += abs(x1 - columns[j, c])
                    y[2, c] += abs(x2 - columns[j, c])
                    y[3, c] += abs(x3 - columns[j, c])

    @compiled
    def city_block(out, low, high, rows, columns):
        """Sums of absolute differences of rows (4 q, d) to columns (d, m): out is (4 q, m)."""
        for four in range(low, high):
            own = slice(4 * four, 4 * four + 4)
            _distances(out[own], rows[own], columns, False)

    @compiled
    def kernel_sums(out, low, high, rows, columns, weights, slope, squared):
        """Sums of weights (m,) times exp(slope * distance to columns (d, m)) for rows (4 q, d).

        ``low`` and ``high`` count groups of four rows, which share a pass over the columns; out is
        (4 q,). The distance is the root of the sum of squared differences if ``squared``, else the
        sum of absolute differences.
        """
        m = columns.shape[1]
        y = np.empty((4, m), f32)
        for four in range(low, high):
            _distances(y, rows[4 * four : 4 * four + 4], columns, squared)
            for r in range(4):
                total = 0.0
                for c in range(m):
                    distance = np.sqrt(y[r, c]) if squared else y[r, c]
                    total += weights[c] * np.float64(exp(slope * distance))
                out[4 * four + r] = total

    @compiled
    def sign_sums(out, low, high, columns, centres, weights):
        """Sums over c of weights (n, m) times sign(columns (d, n) - centres (d, m)): out (d, n)."""
        m = centres.shape[1]
        for j in range(low, high):
            centre = centres[j]
            for i in range(weights.shape[0]):
                x = columns[j, i]
                total = f32(0.0)
                for c in range(m):
                    above = weights[i, c] if x > centre[c] else f32(0.0)
                    below = weights[i, c] if x < centre[c] else f32(0.0)
                    total += above - below
                out[j, i] = total

    without_nan = partial(inlined, fastmath={*FAST, "nnan"})

    @without_nan
    def _least_of_lanes(least, values):
        """Write the smallest of values (m,) at c, c + L, c + 2 L, ... to least (L,), for all c."""
        lanes = len(least)
        least[:] = values[:lanes]
        for start in range(lanes, len(values), lanes):
            for c in range(min(lanes, len(values) - start)):
                value = values[start + c]
                least[c] = value if value < least[c] else least[c]

    @compiled
    def least_of_lanes(least, low, high, values):
        """:func:`_least_of_lanes` of each row of values (n, m): least is (n, L)."""
        for i in range(low, high):
            _least_of_lanes(least[i], values[i])

    @without_nan
    def _up_to(values, least, threshold, at):
        """Write to ``at`` where values (m,) are up to the threshold.

        Returns how many there are; len(at) + 1 if they are more than ``at`` can hold.
        """
        count = 0
        for lane in range(len(least)):
            if least[lane] > threshold:
                continue
            for c in range(lane, len(values), len(least)):
                if values[c] <= threshold:
                    if count == len(at):
                        return count + 1
                    at[count] = c
                    count += 1
        return count

    @inlined
    def _exactly(square, index, at, exact, row, reference):
        """Write the k nearest of the candidates ``at`` (c,), by exact squared distance and number.

        ``at`` and ``exact`` (c,) are work space. Shell sort: a hundred neighbours take a third of
        the time of insertion sort, and few neighbours the same time.
        """
        for number, c in enumerate(at):
            exact[number] = 0.0
            for j in range(len(row)):
                exact[number] += (row[j] - reference[c, j]) ** 2
        gap = 1
        while gap < len(at) // 3:
            gap = 3 * gap + 1
        while gap > 0:
            for i in range(gap, len(at)):
                near, c, p = exact[i], at[i], i
                # Ties go to the first row; the candidates come lane by lane.
                while p >= gap and (
                    exact[p - gap] > near or (exact[p - gap] == near and at[p - gap] > c)
                ):
                    exact[p] = exact[p - gap]
                    at[p] = at[p - gap]
                    p -= gap
                exact[p] = near
                at[p] = c
            gap //= 3
        square[:] = exact[: len(square)]
        index[:] = at[: len(index)]

    @compiled
    def nearest(square, low, high, index, bound, near, rows, reference):
        """The k nearest of m reference rows, from rounded squared distances (n, m).

        Writes exact squared distances and row numbers (n, k), ascending. Reference rows whose
        rounded value exceeds ``bound`` (n,) are not looked at; if too many values do not, the bound
        becomes -inf and nothing is written. ``near`` holds the rounded values, and the minima of
        their lanes (n, L); ``rows`` (n, d) and ``reference`` (m, d) hold whole numbers.
        """
        values, least = near
        at = np.empty(4 * (square.shape[1] + MORE), np.int64)
        exact = np.empty(len(at))
        for i in range(low, high):
            count = _up_to(values[i], least[i], bound[i], at)
            if count > len(at):  # many are nearly equally far
                bound[i] = -np.inf
                continue
            _exactly(square[i], index[i], at[:count], exact[:count], rows[i], reference)


def _fours(X):
    """Rows (n, d) as float32, padded with rows of zeros to a multiple of four."""
    rows = np.zeros((-(-len(X) // 4) * 4, X.shape[1]), np.float32)
    rows[: len(X)] = X
    return rows


def sums_of_kernels(X, Y, weights, slope, squared):
    """Sums of weights (m,) times exp(slope * distance) between rows X (n, d) and Y (m, d): (n,).

    Distances are float32, the sums float64.

    Args:
        X: (n, d) rows.
        Y: (m, d) rows.
        weights: (m,).
        slope: factor of the distance in the exponent.
        squared: whether the distance is the root of the sum of squared differences; else it is the
            sum of absolute differences.
    """
    rows = _fours(X)
    columns = np.ascontiguousarray(Y.T, np.float32)
    out = np.empty(len(rows))
    shares = parts(len(rows) // 4, len(rows) * columns.size) if len(X) else []
    given = [rows, columns, weights.astype(np.float64), np.float32(slope), squared]
    run(kernel_sums, shares, out, [given] * len(shares))
    return out[: len(X)]


def city_block_distances(X, Y):
    """Sums of absolute differences between rows X (n, d) and Y (m, d): (n, m) float32."""
    rows = _fours(X)
    columns = np.ascontiguousarray(Y.T, np.float32)
    out = np.empty((len(rows), len(Y)), np.float32)
    shares = parts(len(rows) // 4, len(rows) * columns.size)
    run(city_block, shares, out, [[rows, columns]] * len(shares))
    return out[: len(X)]


def sums_of_signs(X, Y, weights):
    """Sums of weights (n, m) times the signs of X (n, d) less Y (m, d) over m: (n, d) float32."""
    columns, centres = (np.ascontiguousarray(rows.T, np.float32) for rows in (X, Y))
    out = np.empty_like(columns)
    shares = parts(len(columns), columns.size * len(Y))
    run(sign_sums, shares, out, [[columns, centres, weights]] * len(shares))
    return out.T


def nearest_rows(near, rows, reference, k):
    """The k nearest of m reference rows, exactly.

    Args:
        near: (n, m) float32, m >= k + MORE; squared distances up to rounding and a constant per
            row.
        rows: (n, d) float64 of whole numbers.
        reference: (m, d) the same.
        k: how many.

    Returns:
        Squared distances and row numbers (n, k), where ties go to the first row; and a bound (n,)
        that ``near`` exceeds for all reference rows that were not looked at. It is -inf for rows
        whose neighbours were not computed.
    """
    square = np.zeros((len(rows), k))
    index = np.zeros((len(rows), k), np.int64)
    n, m = near.shape
    n_least = k + MORE
    least = np.empty((n, -(-m // max(min(m // (4 * n_least), LANE), 1))), np.float32)
    shares = parts(n, near.size)
    run(least_of_lanes, shares, least, [[near]] * len(shares))
    # n_least lanes have a minimum up to the bound, so at least n_least values are up to it.
    bound = np.partition(least, n_least - 1, axis=1)[:, n_least - 1].astype(np.float64)
    given = [index, bound, (near, least), rows, reference]
    run(nearest, shares, square, [given] * len(shares))
    return square, index, bound
