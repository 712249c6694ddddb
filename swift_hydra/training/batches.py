"""All batches of a training, drawn before its first step.

Each class fills half of every batch, so that every batch has anomalies, however few are known.
Drawing batch by batch would cost more time than a small training step.

Shapes: n real rows, m generated ones, S steps, B rows of a batch, E experts, F folds.
"""

from typing import NamedTuple

import torch


class Examples(NamedTuple):
    """What a detector learns from.

    Attributes:
        X: (n, d) float32 tensor.
        y: (n,) int64, 1 for the known anomalies.
        generated: (m, d) generated anomalies; m may be 0.
        folds: (n,) int64 or None. With folds, expert j never learns from a row of fold j mod F,
            so that its logits of those rows are left-out predictions.
        views: (F, n, c) the last c columns of X as computed without each fold, or None if they do
            not depend on other rows. Expert j reads view j mod F.
        generated_views: (F, m, c) the same of the generated rows.
        copied_folds: (m,) int64, the fold of the training row that a generated row is a copy of, so
            that no expert learns from the copy of a row it leaves out; -1 for others. None: no
            copies.
        left_out: (n, d) the rows as a model that leaves them out sees them when it predicts them;
            None: X.
    """

    X: torch.Tensor
    y: torch.Tensor
    generated: torch.Tensor
    folds: torch.Tensor | None = None
    views: torch.Tensor | None = None
    generated_views: torch.Tensor | None = None
    copied_folds: torch.Tensor | None = None
    left_out: torch.Tensor | None = None

    def to(self, device):
        """The same examples on a device; the folds stay where they are."""
        folds = {"folds": self.folds, "copied_folds": self.copied_folds}

        def placed(part):
            return part if part is None else part.to(device)

        return Examples(*map(placed, self._replace(**dict.fromkeys(folds))))._replace(**folds)

    def dealt(self, n_folds):
        """Folds (m,) of the generated rows: in turn, except those of copies of training rows."""
        in_turn = torch.arange(len(self.generated)) % n_folds
        if self.copied_folds is None:
            return in_turn
        return torch.where(self.copied_folds < 0, in_turn, self.copied_folds)

    def to_predict(self):
        """The rows (n, d) as a model that did not learn from them sees them."""
        return self.X if self.left_out is None else self.left_out

    def without(self, fold):
        """The examples without a fold, in that fold's view; and the fold's rows, to predict."""
        here = torch.as_tensor(self.folds) == fold
        X, generated = self.X, self.generated
        left = self.to_predict()[here]
        if self.views is not None:
            X = with_view(X, self.views[fold])
            generated = with_view(generated, self.generated_views[fold])
        if self.copied_folds is not None:
            generated = generated[self.copied_folds != fold]
        return Examples(X[~here], self.y[~here], generated), left


def with_view(X, view):
    """Rows X (..., d) with their last columns replaced by ``view`` (..., c)."""
    return torch.cat([X[..., : X.shape[-1] - view.shape[-1]], view], dim=-1)


def half_and_half(normal, anomaly, steps, size, generator):
    """Row numbers of all batches, half of them anomalies, drawn with replacement: (S, B).

    Args:
        normal: row numbers of the normals.
        anomaly: row numbers of the anomalies.
        steps: S.
        size: B.
        generator: torch Generator.
    """
    half = size // 2
    normals = normal[torch.randint(len(normal), (steps, size - half), generator=generator)]
    anomalies = anomaly[torch.randint(len(anomaly), (steps, half), generator=generator)]
    return torch.cat([normals, anomalies], dim=1)


def partners(fold, generator):
    """For every row of every batch another row of its fold (itself if it is alone): (S, B).

    Args:
        fold: (S, B) fold numbers of the rows.
        generator: torch Generator.
    """
    noise = torch.rand(fold.shape, generator=generator, dtype=torch.float64)
    key = fold.double() + 0.999 * noise
    order = torch.argsort(key, dim=1)  # fold after fold, in random order within each
    ordered = fold.gather(1, order)
    first = torch.searchsorted(ordered, ordered)  # where this row's fold begins
    following = torch.arange(1, fold.shape[1] + 1).clamp(max=fold.shape[1] - 1)
    same = ordered[:, following] == ordered
    same[:, -1] = False
    partner = order.gather(1, torch.where(same, following, first))
    return torch.empty_like(order).scatter(1, order, partner)


class Batch(NamedTuple):
    """A batch of a detector's training."""

    inputs: torch.Tensor  # (B, d) the rows
    each: torch.Tensor | None  # (E, B, d) as each expert sees them, if that differs
    allowed: torch.Tensor | None  # (B, E) bool, which experts may see which row; None: all
    target: torch.Tensor  # (B,) labels after mix-up
    share: torch.Tensor  # (E, 1 or B) weight of every row in every expert's own loss; sums to 1


class BatchPlan:
    """The batches of a detector's training: rows, mix-up and what each expert may see.

    Mix-up mixes rows of one fold only, and generated rows are distributed over the folds. So no
    expert learns from a row that it leaves out, not even as part of a mixture.

    Args:
        examples: :class:`Examples`.
        n_experts: E.
        recipe: has ``steps``, ``batch``, ``mixup`` and ``synthetic_share``, see
            :class:`pretrain.Recipe`.
        generator: torch Generator that draws the batches.
        rng: numpy Generator that draws mix-up's weights.

    Attributes:
        target: (S, B) labels after mix-up.
        share: (S, E, 1 or B) weight of every row in every expert's own loss; sums to 1.
    """

    def __init__(self, examples, n_experts, recipe, generator, rng):
        X, y, generated, folds, views, generated_views, *_ = examples
        steps = recipe.steps
        batch = recipe.batch
        device = X.device
        normal, anomaly = ((y == label).nonzero().squeeze(1).cpu() for label in (0, 1))
        # Without a known anomaly, generated rows fill the whole anomaly half.
        known = anomaly if len(anomaly) else normal
        rows = half_and_half(normal, known, steps, batch, generator)  # (S, B)
        share = recipe.synthetic_share if len(anomaly) else 1.0
        n_generated = round(batch // 2 * share) if len(generated) else 0
        if len(generated) and 0 < share < 1:  # at least one row of each kind
            n_generated = min(max(n_generated, 1), batch // 2 - 1)
        self.source = torch.cat([X, generated]) if n_generated else X  # (n + m, d)
        self._views = views
        if views is not None and n_generated:
            self._views = torch.cat([views, generated_views], dim=1)  # (F, n + m, c)
        self._n_experts = n_experts
        if n_generated:
            drawn = torch.randint(len(generated), (steps, n_generated), generator=generator)
            rows[:, batch - n_generated :] = len(X) + drawn
        target = torch.cat([torch.zeros(batch - batch // 2), torch.ones(batch // 2)])
        if not len(anomaly) and not n_generated:  # all rows are normal
            target = torch.zeros(batch)
        target = target.expand(steps, batch)
        fold = torch.zeros(len(self.source), dtype=torch.long)
        n_folds = 1
        if folds is not None:
            n_folds = int(max(folds)) + 1
            dealt = examples.dealt(n_folds)[: len(self.source) - len(X)]
            fold = torch.cat([torch.as_tensor(folds), dealt])
        fold = fold[rows]  # (S, B)
        self._allow(fold, n_folds, n_experts, device)
        self._partner = None
        if recipe.mixup > 0:
            weight = rng.beta(recipe.mixup, recipe.mixup, size=(steps, batch)).astype("float32")
            weight = torch.from_numpy(weight)
            partner = partners(fold, generator)
            target = torch.lerp(target.gather(1, partner), target, weight)
            self._partner = rows.gather(1, partner).to(device)
            self._weight = weight[..., None].to(device)  # (S, B, 1)
        self._rows = rows.to(device)
        self.target = target.to(device)

    def _allow(self, fold, n_folds, n_experts, device):
        steps, batch = fold.shape
        even = torch.full((n_experts, 1), 1.0 / (n_experts * batch), device=device)
        self.share = even.expand(steps, n_experts, 1)
        self._allowed = None
        if n_folds > 1:
            allowed = fold[..., None] != torch.arange(n_experts) % n_folds
            self._allowed = allowed.to(device)  # (S, B, E)
            total = self._allowed.sum((1, 2), keepdim=True)
            self.share = (self._allowed / total).transpose(1, 2)  # (S, E, B)

    def batch(self, step):
        """The :class:`Batch` of a step."""
        inputs = self._inputs(step)
        allowed = None if self._allowed is None else self._allowed[step]
        each = self._of_experts(step, inputs)
        return Batch(inputs, each, allowed, self.target[step], self.share[step])

    def _inputs(self, step):
        """The rows of a batch, (B, d)."""
        rows = self.source[self._rows[step]]
        if self._partner is None:
            return rows
        return torch.lerp(self.source[self._partner[step]], rows, self._weight[step])

    def _of_experts(self, step, inputs):
        """The inputs (B, d) of a batch as each expert sees them: (E, B, d) or None."""
        if self._views is None:
            return None
        views = self._views[:, self._rows[step]]  # (F, B, c)
        if self._partner is not None:
            views = torch.lerp(self._views[:, self._partner[step]], views, self._weight[step])
        each = with_view(inputs.expand(len(views), -1, -1), views)
        return each[torch.arange(self._n_experts) % len(views)]
