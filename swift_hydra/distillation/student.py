"""A small mixture of Mamba experts that learns a fitted detector's scores (``fast=True``).

# DIFF(paper): an addition. The paper's mixture is small; the parts added to it here (evidence,
kernel experts) are accurate but slow, and hold training rows. After Hinton et al., "Distilling the
knowledge in a neural network" (2015): the fitted detector is the teacher, this is the student.

The student sees a row, its distances to a few centres, and how far out it lies. It learns from new
rows that the teacher scores (:func:`questions`), not from the training rows (though a question can
equal one if columns have few values, or if a row is mixed with itself). With training rows and the
teacher's left-out scores as targets, the student memorised scores that the teacher does not give to
rows around them, and its scores of training rows did not predict those of fresh rows. The student
holds no training row: every centre is the mean of at least two different rows.

Shapes: n rows, d features, c centres, i inputs, E experts.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from sklearn.cluster import MiniBatchKMeans

from swift_hydra.geometry import BOUND, ROUNDING, Neighbours, copies, squared_distances
from swift_hydra.model import MoEDetector
from swift_hydra.scan.backends import choose_backend, loaded_backend
from swift_hydra.seeds import sample_of, stage_rng
from swift_hydra.snapshot import pack_network, read_network
from swift_hydra.training.optimise import Optimiser, Training
from swift_hydra.training.seeds import streams

N_EXPERTS = 4
MIXTURE = {"k": 2, "n_tokens": 4, "d_model": 16, "d_head": 64, "dropout": 0.0}
STEPS = 600
BATCH = 128
RATE = 3e-3
DECAY = 1e-4
BALANCE = 0.02
QUESTIONS = 9000
NORMAL_CENTRES = 64
ANOMALY_CENTRES = 16
NEAREST = 8  # nearest centres of normals whose distances are inputs, in ascending order
NEAREST_ANOMALIES = 4
CENTRED_ROWS = 16384  # most rows from which centres are computed
ROWS_AROUND = 2048  # rows searched for one to average with a row that is alone in its cluster
STEP = 2.0**-20  # squared distances are rounded to multiples of this
LEAST = 1e-2  # added to a distance before its logarithm
MOST = 6.0  # bound of a standardised input
FARTHEST = 12.0  # bound of a squashed score
SHELLS = (0.05, 8.0)  # how far rows are moved, in distances to their neighbours
DISAGREE = 0.5  # student and teacher disagree if their squashed scores differ by more
# The student follows the teacher up to this share of disagreement and from this rank correlation.
MOST_DISAGREEMENT = 0.05
LEAST_CORRELATION = 0.7
SCORED_ROWS = 65536  # rows scored at a time: their inputs are many times larger
TOP = 0.03  # share of the rows, the highest scores, that the teacher scores again
TOP_OF_UNLABELLED = 0.1  # the same if no anomaly is known
QUANTILES = 201  # quantiles of the training rows' scores that are kept
TIE = 1e-6  # scores, in units of ``spread``, that differ by less are equal


def questions(Z, y, generated, rng):
    """Rows for the teacher to score, float32 (m, d): ``QUESTIONS`` rows, and the generated ones.

    A third each: mix-up of two rows; rows moved in a random direction of some features by .05 to 8
    times their distance to their neighbours; rows with a random share of another row's values. The
    last third is left out if there is only one column.

    Args:
        Z: (n, d) standardised training rows.
        y: (n,) labels, 1 for known anomalies.
        generated: (g, d) generated anomalies.
        rng: numpy Generator.
    """
    n, d = Z.shape
    m = QUESTIONS // 3
    known = np.flatnonzero(y == 1)
    pool = np.concatenate([np.arange(n), known])

    def some(rows=pool):
        return rng.choice(rows, size=m)

    weight = rng.beta(0.5, 0.5, size=(m, 1))
    mixed = weight * Z[some()] + (1 - weight) * Z[some()]
    base = np.where(rng.random(m) < 0.25, some(known if len(known) else pool), some(np.arange(n)))
    reference = Neighbours(Z[rng.permutation(n)[:4096]])
    step = reference.mean_distance(Z[base], 5, others=True, nothing=0.0) + 1e-3
    step *= np.exp(rng.uniform(*np.log(SHELLS), size=m))
    along = rng.random((m, d)) < rng.random((m, 1))
    along[np.arange(m), rng.integers(d, size=m)] |= ~along.any(1)  # one feature at least
    direction = rng.normal(size=(m, d)) * along
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    moved = Z[base] + step[:, None] * direction / np.maximum(length, 1e-9)
    taken = rng.random((m, d)) < rng.random((m, 1))
    # Swap at least one value and not all, as the result would otherwise be a training row.
    one = rng.integers(d, size=m)
    odd = taken.all(1) | ~taken.any(1)
    taken[odd, one[odd]] ^= True
    swapped = np.where(taken, Z[some()], Z[some(np.arange(n))])
    parts = [mixed, moved, swapped, generated] if d > 1 else [mixed, moved, generated]
    rows = np.concatenate(parts)
    return np.clip(rows, -BOUND, BOUND).astype(np.float32)


def centres_of(Z, most, rng, others=None):
    """Centres of rows (n, d), each the mean of at least two different rows: (c, d) float64.

    The exception: if all rows, ``others`` included, are copies of one, the centre is that row.

    Args:
        Z: (n, d) the rows.
        most: most centres.
        rng: numpy Generator.
        others: (o, d) further rows to average with a row that is alone in its cluster.
    """
    if len(Z) > CENTRED_ROWS:
        Z = Z[sample_of(len(Z), CENTRED_ROWS, rng)]
    wanted = max(min(most, len(Z) // 2), 1)
    seed = int(rng.integers(2**31))
    kmeans = MiniBatchKMeans(wanted, n_init=1, max_iter=20, random_state=seed).fit(Z)
    label = kmeans.predict(Z)
    count = np.bincount(label, minlength=wanted)
    total = np.zeros((wanted, Z.shape[1]))
    np.add.at(total, label, Z.astype(np.float64))
    centres = total[count > 0] / count[count > 0, None]
    # Copies of a row, up to rounding, count as one row.
    kinds = np.unique(np.column_stack([label, copies(Z, ROUNDING)]), axis=0)[:, 0]
    alone = np.bincount(kinds, minlength=wanted)[count > 0] < 2
    # Average with the nearest other *row*. With another centre, which is in the file too, the row
    # could be computed from the two.
    around = Z[:ROWS_AROUND] if others is None else np.concatenate([Z[:ROWS_AROUND], others])
    for i in np.flatnonzero(alone):
        apart = np.abs(around - centres[i]).max(1)
        other = apart > ROUNDING
        if other.any():
            nearest = around[other][np.square(around[other] - centres[i]).sum(1).argmin()]
            centres[i] = (centres[i] + nearest) / 2
    return centres


def _root(square):
    """float32 roots of float64 sums, without their last digits.

    Those depend on a row's place in its batch, and standardising an input that hardly varies can
    multiply them by a thousand.
    """
    return (square / STEP).round_().mul_(STEP).clamp_(min=0.0).sqrt_().float()


def rank_correlation(scores, teachers):
    """Spearman correlation of scores (n,) with the teacher's (n,).

    1 if all of the teacher's scores are equal; 0 if only the other scores are.
    """
    if not np.ptp(teachers):
        return 1.0
    return float(spearmanr(scores, teachers).statistic) if np.ptp(scores) else 0.0


class Inputs:
    """The student's inputs: i numbers for each row, all of them cheap to compute.

    The row itself; logarithms of the distances to its nearest centres of normals and of known
    anomalies, in ascending order; its length and its largest absolute value; a Gaussian of the
    distance to every centre.

    Args:
        normals: (c, d) centres of rows that are not known anomalies.
        anomalies: (a, d) centres of the known anomalies; a may be 0.
        width: bandwidth of the Gaussians.
        centre: (i,) mean of the inputs over the training rows, or None.
        scale: (i,) their standard deviation, or None.
    """

    def __init__(self, normals, anomalies, width, centre=None, scale=None):
        self.normals = torch.as_tensor(normals).double()
        self.anomalies = torch.as_tensor(anomalies).double()
        self.width = float(width)
        self.centre = None if centre is None else torch.as_tensor(centre).float()
        self.scale = None if scale is None else torch.as_tensor(scale).float()
        self._centres = torch.cat([self.normals, self.anomalies])  # (c + a, d)

    @classmethod
    def fit(cls, Z, y, rng):
        """Fit to standardised rows (n, d) with labels (n,), drawing from a numpy Generator."""
        normals = centres_of(Z[y != 1], NORMAL_CENTRES, rng)
        known = Z[y == 1]
        anomalies = known[:0]
        if len(known):
            anomalies = centres_of(known, ANOMALY_CENTRES, rng, Z[y != 1][:ROWS_AROUND])
        self = cls(normals, anomalies, 1.0)
        some = torch.from_numpy(Z[rng.permutation(len(Z))[:2000]])
        near = self._distances(some)[:, : len(normals)].sort(dim=1).values
        self.width = 1.5 * float(near[:, min(4, len(normals) - 1)].median()) + 1e-3
        rows = torch.from_numpy(Z[rng.permutation(len(Z))[:CENTRED_ROWS]])
        values = self(rows)
        self.centre = values.mean(0)
        self.scale = values.std(0, correction=0) + 1e-3
        return self

    def _distances(self, Z):
        return _root(squared_distances(Z, self._centres))  # (n, c + a)

    def __call__(self, Z):
        """Inputs (n, i) float32 of a float32 tensor of rows (n, d)."""
        distance = self._distances(Z)
        c = len(self.normals)
        parts = [Z]
        for some, k in ((distance[:, :c], NEAREST), (distance[:, c:], NEAREST_ANOMALIES)):
            near = some.topk(min(k, some.shape[1]), dim=1, largest=False).values
            parts.append((near + LEAST).log())
        length = _root(Z.double().square().sum(1, keepdim=True))
        parts += [length, Z.abs().amax(1, keepdim=True)]
        parts.append((distance / self.width).square_().mul_(-0.5).exp_())
        values = torch.cat(parts, dim=1)
        if self.centre is None:
            return values
        return values.sub_(self.centre).div_(self.scale).clamp_(-MOST, MOST)

    def snapshot(self):
        """Tensors and plain numbers."""
        names = ("normals", "anomalies", "width", "centre", "scale")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_snapshot(cls, saved):
        """Rebuild from :meth:`snapshot`.

        Raises:
            ValueError: if shapes do not fit together or numbers are not finite.
        """
        self = cls(**saved)
        d = self.normals.shape[1]
        parts = (self.normals, self.anomalies, self.centre, self.scale)
        if not len(self.normals) or self.anomalies.shape[1:] != (d,) or not self.width > 0:
            raise ValueError("the student's centres do not fit together")
        if not all(part.isfinite().all() for part in parts) or not (self.scale > 0).all():
            raise ValueError("the student's inputs are not finite")
        return self


class Student:
    """A mixture of Mamba experts that scores in a detector's place.

    It learns squashed scores, arsinh((score - middle) / spread), so that a difference between two
    extreme anomalies counts less than one between two ambiguous rows.

    Its teacher scores the highest scores again. The student's error is small, but at the top it
    takes little to put a normal row above an anomaly. What is high is counted among the training
    rows that are no known anomalies, as most new rows are: among all, the bound could lie above all
    normal rows. More rows are scored again if no anomaly is known: the teacher then compares rows
    with their nearest neighbours, and anomalies exceed the farthest normal rows by little.

    Args:
        inputs: :class:`Inputs`.
        network: a :class:`model.MoEDetector` that reads them.
        middle: median of the teacher's scores of the training rows, scored like new rows.
        spread: standard deviation of these.
        quantiles: (QUANTILES,) of the student's scores of the training rows that are no known
            anomalies, as if neither it nor the teacher had seen them.
        agreement: ``disagreement``, the share of training rows on which the squashed scores of
            student and teacher differ by more than ``DISAGREE``, and ``rank_correlation``.
        followed: 0 to 1, how much of the teacher's memory of the training rows the student
            reproduces; memory is the difference between the teacher's score of a row and its
            left-out score.
        top: share of the rows that the teacher scores again unless another is given.
    """

    def __init__(
        self,
        inputs,
        network,
        middle,
        spread,
        quantiles=None,
        agreement=None,
        followed=1.0,
        top=0.0,
    ):
        self.inputs = inputs
        self.network = network
        self.middle = float(middle)
        self.spread = float(spread)
        self.quantiles = quantiles
        self.agreement = agreement
        self.followed = float(followed)
        self.top = float(top)

    @classmethod
    def fit(cls, rows, kept, scores, left_out, teacher, generated, settings, journal):
        """Learn a teacher's scores.

        Args:
            rows: :class:`data.rows.TrainingRows`.
            kept: (n,) bool, the rows that the teacher learned from. Centres and questions are made
                of them; the agreement with the teacher is measured on all rows.
            scores: (n,) the teacher's scores of all rows, scored like new rows.
            left_out: (n,) the teacher's left-out scores.
            teacher: a function from standardised rows (m, d) to the teacher's scores.
            generated: (g, d) generated anomalies, standardised.
            settings: has ``random_state`` and ``mamba``.
            journal: a :class:`journal.Journal`.
        """
        seed = int(settings.random_state)
        rng = stage_rng(seed, "student/questions")
        Z = np.asarray(rows.Z, dtype=np.float32)
        asked = questions(Z[kept], rows.y[kept], generated, rng)
        spread = max(float(scores.std()), 1e-6)
        self = cls(Inputs.fit(Z[kept], rows.y[kept], rng), None, np.median(scores), spread)
        self.top = TOP if (rows.y == 1).any() else TOP_OF_UNLABELLED
        target = torch.from_numpy(self._squashed(teacher(asked))).float()
        X = self.inputs(torch.from_numpy(asked))
        draws = streams(seed, "student/batches").draws
        batches = torch.randint(len(asked), (STEPS, BATCH), generator=draws)
        self.network = _train(X, target, batches, seed, settings.mamba, journal)
        own = self.score(Z)
        by_student, by_teacher, without = map(self._squashed, (own, scores, left_out))
        far = np.abs(by_student - by_teacher) > DISAGREE
        rank = rank_correlation(own, scores)
        self.agreement = {"disagreement": float(far.mean()), "rank_correlation": rank}
        memorised = by_teacher - without
        if memorised.any():
            followed = memorised @ (by_student - without) / np.square(memorised).sum()
            self.followed = float(np.clip(followed, 0, 1))
        others = rows.y != 1
        self.measure(left_out[others], self.beside(Z, scores)[others])
        return self

    def measure(self, left_out, beside):
        """Set ``quantiles``, with arguments as in :meth:`as_left_out`, of which rows to count."""
        self.quantiles = _quantiles(self.as_left_out(left_out, beside, 0.0))

    @property
    def follows(self):
        """Whether its scores of the training rows agree with the teacher's well enough."""
        return (
            self.agreement["disagreement"] <= MOST_DISAGREEMENT
            and self.agreement["rank_correlation"] >= LEAST_CORRELATION
        )

    def _squashed(self, scores):
        return np.arcsinh((scores - self.middle) / self.spread)

    def _unsquashed(self, values):
        return self.middle + self.spread * np.sinh(np.clip(values, -FARTHEST, FARTHEST))

    def beside(self, Z, teachers):
        """What :meth:`as_left_out` needs to know about training rows.

        These are the student's squashed scores less ``followed`` times the teacher's: (n,).

        Args:
            Z: (n, d) the rows.
            teachers: (n,) the teacher's scores of them, scored like new rows.
        """
        return self._squashed(self.score(Z)) - self.followed * self._squashed(teachers)

    def as_left_out(self, left_out, beside, share):
        """Scores (n,) of the training rows as if neither student nor teacher had seen them.

        These are the student's scores less the part of the teacher's memory that it reproduces:
        ``followed`` times the difference between the teacher's score and its left-out score. With
        the whole difference, known anomalies would score too low if the student reproduces less.

        Args:
            left_out: (n,) the teacher's left-out scores.
            beside: (n,) what :meth:`beside` returns.
            share: share of the rows that the teacher scores again; they get its left-out scores.
        """
        scores = self._unsquashed(beside + self.followed * self._squashed(left_out))
        return np.where(self._again(scores, share), left_out, scores)

    def _again(self, scores, share):
        """Which of the student's scores (n,) the teacher finds again: (n,) bool."""
        if share in (0, 1):
            return np.full(len(scores), share == 1)
        bound = np.interp(1 - share, np.linspace(0, 1, QUANTILES), self.quantiles)
        return scores > bound + TIE * self.spread

    def score(self, Z, share=0.0, teacher=None):
        """(n,) float64 scores of standardised rows (n, d), on the teacher's scale.

        Args:
            Z: (n, d) the rows.
            share: share of rows that the teacher scores again; the actual share depends on how
                similar the rows are to the training rows.
            teacher: a function from rows to the teacher's scores.
        """
        parts = torch.from_numpy(np.asarray(Z, dtype=np.float32)).split(SCORED_ROWS)
        values = torch.cat([self.network.score(self.inputs(part)) for part in parts])
        scores = self._unsquashed(values.numpy().astype(np.float64))
        again = self._again(scores, share)
        if again.any():
            scores[again] = teacher(np.asarray(Z)[again])
        return scores

    def snapshot(self):
        """Tensors and plain values."""
        return {
            "inputs": self.inputs.snapshot(),
            "network": pack_network(self.network),
            "middle": self.middle,
            "spread": self.spread,
            "quantiles": self.quantiles,
            "agreement": self.agreement,
            "followed": self.followed,
            "top": self.top,
        }

    @classmethod
    def from_snapshot(cls, saved, backend, scores):
        """Rebuild from :meth:`snapshot`; scores are equal to the bit.

        Args:
            saved: what :meth:`snapshot` returned.
            backend: the setting it was trained with.
            scores: (n,) the training rows' scores, for older files, which lack the quantiles. In
                these the teacher scored no row again unless told to.
        """
        network = read_network(MoEDetector, saved["network"])
        network.backend = loaded_backend(backend)
        quantiles = saved["quantiles"] if "quantiles" in saved else _quantiles(scores)
        if quantiles.shape != (QUANTILES,) or not np.isfinite(quantiles).all():
            raise ValueError("the student's quantiles are not finite or too few")
        inputs = Inputs.from_snapshot(saved["inputs"])
        network(inputs(inputs.normals[:1].float()))
        followed = float(saved.get("followed", 1.0))  # older files lack it, and assume all
        top = float(saved.get("top", 0.0))
        if not (0 <= followed <= 1 and 0 <= top < 1):
            raise ValueError("what the student follows, or leaves to its teacher, is no share")
        scale = saved["middle"], saved["spread"]
        return cls(inputs, network, *scale, quantiles, dict(saved["agreement"]), followed, top)


def _quantiles(scores):
    return np.quantile(scores, np.linspace(0, 1, QUANTILES))


def _train(X, target, batches, seed, backend, journal):
    """Train the network on inputs (n, i) and targets (n,); returns it in eval mode."""
    stream = streams(seed, "student")
    network = stream.built(lambda: MoEDetector(X.shape[1], n_experts=N_EXPERTS, **MIXTURE)).train()
    network.backend = choose_backend(backend, X.device)
    optimiser = Optimiser(network, RATE, DECAY, STEPS)
    training = Training("student", network, optimiser, STEPS, stream, journal)
    for step in training:
        wanted = target[batches[step]]  # (B,)
        out = network(X[batches[step]], stream=stream)
        own = F.smooth_l1_loss(out.expert_logits, wanted.expand(N_EXPERTS, -1))
        mixture = F.smooth_l1_loss(out.logit, wanted)
        loss = mixture + own + BALANCE * out.router.balance_loss
        training.learn(loss, student_loss=mixture.item())
    network.backend = loaded_backend(backend)
    return network.eval()
