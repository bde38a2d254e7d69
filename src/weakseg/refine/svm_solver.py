"""Soft-margin SVMs over fixed samples whose labels change, one class against one.

The dual of a pair's SVM, in signed coefficients b, which are alpha times y:

    minimise  b'Kb / 2 - y'b    where  sum(b) = 0  and each b_t is between 0 and C y_t

Kernel rows are computed when they are first needed, many in one matrix product, and kept: they
serve all pairs and all trainings, since the samples stay. A training is a decomposition (Joachims,
Making large-scale SVM learning practical, 1999): the worst violators of the optimality conditions
join a working set, the dual over that set is solved by SMO with second-order selection (Fan, Chen
and Lin, JMLR 6, 2005, the rule of libsvm), and the outputs of all samples follow. It ends where
libsvm's does, so that its results are libsvm's within the tolerance.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.refine.compiled import compiled
from weakseg.refine.lanes import (
    add_scaled,
    exp_below,
    larger,
    load,
    minus,
    over,
    row_maximum,
    row_minimum,
    smaller,
    spread,
    store,
    times,
)
from weakseg.refine.settings import KernelName

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]

TOLERANCE = 1e-3
"""The violation of the optimality conditions at which a training ends (libsvm's default)."""

_STORE_BYTES = 512 * 2**20
"""Most memory for kernel rows that are kept."""

_GROWTH = 128
"""How many samples join a working set at once: fewer find the support vectors with fewer rows."""

_LARGEST = 4096
"""Most samples of a working set, whose own kernel matrix then takes 64 MB."""

_STEPS = 10**7
"""Most steps of SMO in a training (libsvm's number): with a high C it may hardly get anywhere."""

_ROUNDS = 1000
"""Most working sets of a training, of which some tens are usual."""

_SUBPROBLEM = 0.02
"""The violation at which the dual over a working set is left, as a share of that before."""

FLAT = 1e-12
"""Least curvature along a step, for samples that are alike (libsvm's tau)."""

_COLUMNS = 1024
"""Columns of kernel rows that are added at once: sums stay in the fastest cache."""

_RUN = 128
"""How many numbers share one record of their maximum."""

_LANES = (0.0,) * 16


@dataclass(frozen=True)
class Kernel:
    """exp(-gamma |a - b|^2) or a'b.

    Attributes:
        name: which of them.
        gamma: the width of "rbf", over 0.
    """

    name: KernelName
    gamma: float = 1.0

    def left(self, points: Floats) -> Floats:
        """What `matrix` takes for points (m, D) that its rows stand for."""
        if self.name == "linear":
            return np.ascontiguousarray(points)
        gamma = np.float32(self.gamma)
        norms = np.einsum("id,id->i", points, points)[:, None]
        return np.concatenate([2 * gamma * points, -gamma * norms, np.ones_like(norms)], axis=1)

    def right(self, points: Floats) -> Floats:
        """What `matrix` takes for points (D, n) that its columns stand for."""
        if self.name == "linear":
            return np.ascontiguousarray(points)
        norms = np.einsum("dj,dj->j", points, points)[None]
        return np.concatenate([points, np.ones_like(norms), -np.float32(self.gamma) * norms])

    def matrix(self, left: Floats, right: Floats, out: Floats) -> None:
        """Write the kernel of every row with every column to `out` (m, n), contiguous.

        The exponent is one matrix product: 2 gamma a'b - gamma |a|^2 - gamma |b|^2.
        """
        np.matmul(left, right, out=out)
        if self.name == "rbf":
            _exponentiate(out.reshape(-1))

    def sums(self, weights: Floats, points: Floats, others: Floats) -> Floats:
        """Sums (P, n), by `weights` (P, m), of the kernel of points (m, D) with others (D, n)."""
        if self.name == "linear":
            return np.asarray(weights @ points @ others, np.float32)
        kernel = np.empty((len(points), others.shape[1]), np.float32)
        self.matrix(self.left(points), self.right(others), kernel)
        return np.asarray(weights @ kernel, np.float32)

    def diagonal(self, points: Floats) -> Doubles:
        """The kernel of each of the points (n, D) with itself, float64 (n,)."""
        if self.name == "rbf":
            return np.ones(len(points))
        norms: Doubles = np.einsum("id,id->i", points, points, dtype=np.float64)
        return norms


def class_means(classes: int) -> Floats:
    """What makes scores of the pairs' decision values, float32 (m, m (m - 1) / 2).

    The scores whose differences fit the decision values best in the least squares sense: a class's
    mean over all m classes of its decision values. The pairs are in the order of
    `itertools.combinations`.
    """
    pairs = list(itertools.combinations(range(classes), 2))
    means = np.zeros((classes, len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        means[[i, j], column] = 1 / classes, -1 / classes
    return means


class KernelRows:
    """Rows of the kernel matrix of samples, computed when they are first asked for.

    Args:
        kernel: the kernel.
        samples: float32 (n, D).

    Attributes:
        count: n.
        capacity: the most rows that are kept; at least 2.
        kept: float32 (capacity, n), where they are.
        diagonal: float64 (n,).
    """

    def __init__(self, kernel: Kernel, samples: Floats) -> None:
        self.count = len(samples)
        self.capacity = max(2, min(self.count, _STORE_BYTES // (4 * self.count)))
        self.kept = np.empty((self.capacity, self.count), np.float32)
        self.diagonal = kernel.diagonal(samples)
        self._kernel = kernel
        self._left = kernel.left(samples)
        self._right = kernel.right(samples.T)
        self._places = np.full(self.count, -1)
        self._used = 0

    def places(self, indices: Indices) -> Indices:
        """Where in `kept` the rows of some distinct samples are, of `capacity` at most.

        Where there is no room for new ones, all others are given up.
        """
        missing = indices[self._places[indices] < 0]
        if self._used + len(missing) > self.capacity:
            self._places[:] = -1
            self._used = 0
            missing = indices
        if len(missing):
            start, self._used = self._used, self._used + len(missing)
            self._kernel.matrix(self._left[missing], self._right, self.kept[start : self._used])
            self._places[missing] = np.arange(start, self._used)
        return self._places[indices]


class PairSVM:
    """One class against one, over samples of which any may take no part; labels may change.

    Args:
        rows: the kernel of the samples.
        C: the price of a sample on the wrong side, over 0.

    Attributes:
        coefficients: float64 (n,), in [0, C] for the first class, in [-C, 0] for the second.
        outputs: float64 (n,), the decision values of all samples, but for `bias`.
        bias: the constant of the decision function, which is over 0 for the first class.
    """

    def __init__(self, rows: KernelRows, C: float) -> None:
        self._rows = rows
        self._C = C
        self.coefficients = np.zeros(rows.count)
        self.outputs = np.zeros(rows.count)
        self.bias = 0.0

    def fit(self, y: Doubles) -> None:
        """Train, from the coefficients of the last training.

        Where C is so high that the optimum is not reached in `_STEPS` steps, it ends short of it.

        Args:
            y: (n,), 1 for the first class, -1 for the second, 0 for samples that take no part;
                both classes occur.
        """
        lower, upper = np.minimum(self._C * y, 0), np.maximum(self._C * y, 0)
        self._make_feasible(y, lower, upper)
        working = _WorkingSet(self._rows)
        steps = _STEPS
        for _ in range(_ROUNDS):
            gradient = y - self.outputs
            up, low = self.coefficients < upper, self.coefficients > lower
            highest, lowest = gradient[up].max(), gradient[low].min()
            if highest - lowest < TOLERANCE or steps == 0:
                break
            working = self._enlarge(working, gradient, up, low)
            tolerance = max(TOLERANCE / 2, _SUBPROBLEM * (highest - lowest))
            middle = (highest + lowest) / 2
            before = self.coefficients
            steps -= self._optimise(working, gradient - middle, lower, upper, tolerance, steps)
            if np.array_equal(self.coefficients, before):  # as near as rounding lets it come
                break
        free = up & low
        self.bias = float(gradient[free].mean() if free.any() else (highest + lowest) / 2)

    def _make_feasible(self, y: Doubles, lower: Doubles, upper: Doubles) -> None:
        """Give up the coefficients that the labels rule out, and others to keep the sum at 0.

        Of the others those go first that their gradient would diminish most.
        """
        wrong = (self.coefficients < lower) | (self.coefficients > upper)
        if not wrong.any():
            return
        feasible = np.where(wrong, 0, self.coefficients)
        excess = feasible.sum()
        sign = np.sign(excess)
        heavy = np.flatnonzero(sign * feasible > 0)
        heavy = heavy[np.argsort(sign * (y - self.outputs)[heavy], kind="stable")]
        amounts = abs(feasible[heavy])
        feasible[heavy] -= sign * (abs(excess) - (amounts.cumsum() - amounts)).clip(0, amounts)
        self._move(feasible)

    def _enlarge(
        self, working: "_WorkingSet", gradient: Doubles, up: Flags, low: Flags
    ) -> "_WorkingSet":
        """The working set with all samples between their bounds and the worst violators.

        A set that would grow too large starts again from the violators alone.
        """
        limit = min(_LARGEST, self._rows.capacity)
        growth = min(_GROWTH, limit)
        known = np.zeros(len(gradient), bool)
        known[working.members] = True
        free = up & low & ~known
        if len(working.members) + free.sum() + growth > limit:
            working = _WorkingSet(self._rows)
            known[:] = free[:] = False
        known |= free
        rising = up & ~known & (gradient > gradient[low].min())
        falling = low & ~known & (gradient < gradient[up].max())
        free[_largest(gradient, rising, growth // 2)] = True
        free[_largest(-gradient, falling, growth // 2)] = True
        working.add(np.flatnonzero(free))
        return working

    def _optimise(
        self,
        working: "_WorkingSet",
        gradient: Doubles,
        lower: Doubles,
        upper: Doubles,
        tolerance: float,
        most: int,
    ) -> int:
        """Solve the dual over the working set alone; the number of steps, `most` at the most."""
        members = working.members
        solved = self.coefficients[members]
        taken: int = _smo(
            working.gram,
            self._rows.diagonal[members],
            solved,
            gradient[members].astype(np.float32),
            lower[members],
            upper[members],
            tolerance,
            most,
        )
        coefficients = self.coefficients.copy()
        coefficients[members] = solved
        self._move(coefficients)
        return taken

    def _move(self, coefficients: Doubles) -> None:
        """Take new coefficients; the outputs of all samples follow."""
        changes = coefficients - self.coefficients
        changed = np.flatnonzero(changes)
        for start in range(0, len(changed), self._rows.capacity):
            some = changed[start : start + self._rows.capacity]
            _add_rows(self.outputs, self._rows.kept, self._rows.places(some), changes[some])
        self.coefficients = coefficients


class _WorkingSet:
    """Samples whose coefficients are free to move, and their own kernel matrix.

    Attributes:
        members: (w,), in the order in which they joined.
        gram: float32 (W, W) with W >= w a multiple of the lanes; finite beyond w as well.
    """

    def __init__(self, rows: KernelRows) -> None:
        self._rows = rows
        self.members = np.empty(0, np.intp)
        self.gram = np.zeros((0, 0), np.float32)

    def add(self, samples: Indices) -> None:
        """Let samples join that are no members yet."""
        known = len(self.members)
        self.members = np.concatenate([self.members, samples])
        count = len(self.members)
        if count > len(self.gram):
            room = -(-max(count, 2 * known) // len(_LANES)) * len(_LANES)
            gram = np.zeros((room, room), np.float32)
            gram[:known, :known] = self.gram[:known, :known]
            self.gram = gram
        _extend(self.gram, known, self._rows.kept, self._rows.places(self.members), self.members)


def _largest(values: Doubles, candidates: Flags, count: int) -> Indices:
    """Where the `count` largest values of the candidates are; some from everywhere if all tie."""
    indices = np.flatnonzero(candidates)
    if len(indices) <= count:
        return indices
    found = values[indices]
    if found.min() == found.max():
        return indices[np.arange(count) * len(indices) // count]
    return indices[np.argpartition(-found, count - 1)[:count]]


@compiled
def _exponentiate(values: Any) -> None:
    whole = len(values) - len(values) % len(_LANES)
    for start in range(0, whole, len(_LANES)):
        store(values, start, exp_below(load(values, start, _LANES), np.float32(0)))
    for i in range(whole, len(values)):
        values[i] = math.exp(values[i])


@compiled
def _extend(gram: Any, known: int, rows: Any, places: Any, members: Any) -> None:
    """Fill in the rows and columns of `gram` behind the first `known` ones."""
    for i in range(known, len(members)):
        row = rows[places[i]]
        for j in range(len(members)):
            gram[i, j] = row[members[j]]
    for j in range(known):
        for i in range(known, len(members)):
            gram[j, i] = gram[i, j]


@compiled
def _add_rows(total: Any, rows: Any, places: Any, weights: Any) -> None:
    """Add rows by their weights; the sums over all rows are made in float32, four at a time."""
    count = len(total)
    whole = count - count % len(_LANES)
    flat, factors = rows.reshape(-1), weights.astype(np.float32)
    fours = len(places) - len(places) % 4
    sums = np.empty(_COLUMNS, np.float32)
    for start in range(0, whole, _COLUMNS):
        width = min(_COLUMNS, whole - start)
        sums[:] = 0
        for k in range(0, fours, 4):
            a, b = places[k] * count + start, places[k + 1] * count + start
            c, d = places[k + 2] * count + start, places[k + 3] * count + start
            for t in range(0, width, len(_LANES)):
                lanes = load(sums, t, _LANES)
                lanes = add_scaled(lanes, factors[k], load(flat, a + t, _LANES))
                lanes = add_scaled(lanes, factors[k + 1], load(flat, b + t, _LANES))
                lanes = add_scaled(lanes, factors[k + 2], load(flat, c + t, _LANES))
                lanes = add_scaled(lanes, factors[k + 3], load(flat, d + t, _LANES))
                store(sums, t, lanes)
        for k in range(fours, len(places)):
            a = places[k] * count + start
            for t in range(0, width, len(_LANES)):
                lanes = add_scaled(load(sums, t, _LANES), factors[k], load(flat, a + t, _LANES))
                store(sums, t, lanes)
        for t in range(width):
            total[start + t] += sums[t]
    for k in range(len(places)):
        for t in range(whole, count):
            total[t] += weights[k] * rows[places[k], t]


@compiled
def _smo(
    gram: Any,
    diagonal: Any,
    coefficients: Any,
    gradient: Any,
    lower: Any,
    upper: Any,
    tolerance: float,
    most: int,
) -> int:
    """Solve the dual over some samples, whose coefficients (w,) are changed.

    Takes `most` steps at the most, and gives their number.

    Args:
        gram: float32 (W, W), of which the first w rows and columns count; the other columns up to
            the next multiple of the lanes are finite.
        gradient: float32 (w,); it is followed less exactly the farther from 0 it is.
    """
    width = -(-len(coefficients) // len(_LANES)) * len(_LANES)
    # The gradient where a coefficient may grow, and where it may shrink.
    growing = np.full(width, -np.inf, np.float32)
    shrinking = np.full(width, np.inf, np.float32)
    curvatures = np.ones(width, np.float32)
    for t in range(len(coefficients)):
        curvatures[t] = diagonal[t]
        if coefficients[t] < upper[t]:
            growing[t] = gradient[t]
        if coefficients[t] > lower[t]:
            shrinking[t] = gradient[t]
    gains = np.empty(width, np.float32)
    i = np.argmax(growing)
    highest, lowest = growing[i], shrinking.min()
    taken = 0
    while highest - lowest >= tolerance and taken < most:
        taken += 1
        j = _second(gram[i], i, highest, shrinking, curvatures, gains)
        fall = highest - shrinking[j]
        curvature = max(curvatures[i] + curvatures[j] - 2 * gram[i, j], FLAT)
        room_i, room_j = upper[i] - coefficients[i], coefficients[j] - lower[j]
        step = min(fall / curvature, room_i, room_j)
        coefficients[i] = coefficients[i] + step if step < room_i else upper[i]
        coefficients[j] = coefficients[j] - step if step < room_j else lower[j]
        shrinking[i] = highest
        growing[j] = shrinking[j]
        if coefficients[i] == upper[i]:
            growing[i] = -np.inf
        if coefficients[j] == lower[j]:
            shrinking[j] = np.inf
        i, highest, lowest = _step(gram[i], gram[j], step, growing, shrinking)
    return taken


@compiled
def _second(row: Any, i: int, highest: float, shrinking: Any, curvatures: Any, gains: Any) -> int:
    """The sample whose step with `i` gains most."""
    width = len(gains)
    base = curvatures[i]
    best, run = np.float32(-1), 0
    for first in range(0, width, _RUN):
        largest = spread(np.float32(-1), _LANES)
        for t in range(first, min(first + _RUN, width), len(_LANES)):
            fall = minus(spread(highest, _LANES), load(shrinking, t, _LANES))
            fall = larger(fall, spread(np.float32(0), _LANES))
            curvature = add_scaled(spread(base, _LANES), np.float32(1), load(curvatures, t, _LANES))
            curvature = add_scaled(curvature, np.float32(-2), load(row, t, _LANES))
            curvature = larger(curvature, spread(np.float32(FLAT), _LANES))
            gain = over(times(fall, fall), curvature)
            store(gains, t, gain)
            largest = larger(largest, gain)
        if row_maximum(largest) > best:
            best, run = row_maximum(largest), first
    while gains[run] != best:
        run += 1
    return run


@compiled
def _step(
    risen: Any, fallen: Any, step: float, growing: Any, shrinking: Any
) -> tuple[int, Any, Any]:
    """Let the gradients follow a step up of one sample and down of another, by their rows.

    Where the highest of `growing` is, it, and the lowest of `shrinking`.
    """
    width = len(growing)
    highest, run = np.float32(-np.inf), 0
    least = spread(np.float32(np.inf), _LANES)
    for first in range(0, width, _RUN):
        largest = spread(np.float32(-np.inf), _LANES)
        for t in range(first, min(first + _RUN, width), len(_LANES)):
            change = minus(load(fallen, t, _LANES), load(risen, t, _LANES))
            grown = add_scaled(load(growing, t, _LANES), np.float32(step), change)
            shrunk = add_scaled(load(shrinking, t, _LANES), np.float32(step), change)
            store(growing, t, grown)
            store(shrinking, t, shrunk)
            largest = larger(largest, grown)
            least = smaller(least, shrunk)
        if row_maximum(largest) > highest:
            highest, run = row_maximum(largest), first
    while run < width - 1 and growing[run] != highest:
        run += 1
    return run, highest, row_minimum(least)
