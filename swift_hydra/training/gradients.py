"""Gradients worked out by hand, since calls and bookkeeping cost small networks most (M2, M9).

- :func:`of_cvae`: the Beta C-VAE's, in two thirds of autograd's time. The order of the sums is
  autograd's, so that for a batch of a power of two all is equal to the bit.
- :func:`mixture_loss`: of the router and the losses that follow it, in one kernel that numba (an
  optional extra) compiles. It takes a tenth of the time of some hundred calls for a hundred numbers
  each, and is equal up to rounding.

Shapes: B rows, d features, E experts.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from swift_hydra.compiled import available
from swift_hydra.model import FORBIDDEN, LEAST_DEVIATION, CVAELoss, MixtureLoss
from swift_hydra.scan.numba_scan import arrays_of

silu_backward = torch.ops.aten.silu_backward


# --- Beta C-VAE -----------------------------------------------------------------------------------


@torch.no_grad()
def of_cvae(cvae, x, y, generator=None):
    """:meth:`model.BetaCVAE.loss`, and its gradient.

    Args:
        cvae: a :class:`model.BetaCVAE`.
        x: (B, d).
        y: (B,) labels.
        generator: source of the noise; None takes the global stream.

    Returns:
        A :class:`model.CVAELoss`, and the gradients in the order of ``parameters()``.
    """
    first, _, second, _ = cvae.encoder
    third, _, fourth, _, last = cvae.decoder
    share = 1.0 / len(x)
    label = y[:, None].to(x.dtype)
    xy = torch.cat([x, label], dim=1)
    a = _linear(first, xy)  # (B, d_hidden) before the activation, as b, c and e
    b = _linear(second, F.silu(a))
    h = F.silu(b)
    mean, raw = _linear(cvae.to_mean, h), _linear(cvae.to_log_variance, h)  # (B, d_latent)
    log_variance = raw.clamp(*cvae.LOG_VARIANCE)
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
    deviation = (0.5 * log_variance).exp()
    zy = torch.cat([mean + noise * deviation, label], dim=1)
    c = _linear(third, zy)
    e = _linear(fourth, F.silu(c))
    error = x - _linear(last, F.silu(e))  # (B, d)
    reconstruction = error.square().sum(1).mean()
    variance = log_variance.exp()
    kl = 0.5 * (mean.square() + variance - 1.0 - log_variance).sum(1).mean()

    g = error * (-2.0 * share)
    of_last = _linear_backward(F.silu(e), g)
    g = silu_backward(g @ last.weight, e)
    of_fourth = _linear_backward(F.silu(c), g)
    g = silu_backward(g @ fourth.weight, c)
    of_third = _linear_backward(zy, g)
    g = (g @ third.weight)[:, :-1]  # of z
    weight = cvae.beta * share
    of_mean = g + mean * weight
    of_raw = variance * (0.5 * weight) - 0.5 * weight + g * noise * deviation * 0.5
    of_raw *= log_variance == raw  # the clamp stops the others
    of_heads = [part for of_head in (of_mean, of_raw) for part in _linear_backward(h, of_head)]
    g = of_raw @ cvae.to_log_variance.weight + of_mean @ cvae.to_mean.weight
    g = silu_backward(g, b)
    of_second = _linear_backward(F.silu(a), g)
    of_first = _linear_backward(xy, silu_backward(g @ second.weight, a))
    loss = CVAELoss(reconstruction + cvae.beta * kl, reconstruction, kl)
    return loss, [*of_first, *of_second, *of_heads, *of_third, *of_fourth, *of_last]


def _linear(layer, x):
    return F.linear(x, layer.weight, layer.bias)


def _linear_backward(x, grad):
    """Gradients of a layer's weight and bias, from inputs (B, in) and those of outputs (B, out)."""
    return grad.t() @ x, grad.sum(0)


# --- mixture --------------------------------------------------------------------------------------

if available():
    from swift_hydra.compiled import compiled, inlined

    @inlined
    def _spread(values, slope):
        """Squared coefficient of variation of values (E,); writes its gradient to slope (E,)."""
        n = len(values)
        mean, variance = 0.0, 0.0
        for e in range(n):
            mean += values[e] / n
        for e in range(n):
            variance += (values[e] - mean) ** 2 / n
        level = mean * mean + 1e-8
        for e in range(n):
            slope[e] = 2.0 * (values[e] - mean - variance / level * mean) / (n * level)
        return variance / level

    @inlined
    def _cross_entropy(logit, target):
        """-log of the probability that sigmoid(logit) gives to the target."""
        return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))

    @inlined
    def _sigmoid(x):
        return 1.0 / (1.0 + math.exp(-x))

    @inlined
    def _add_noise(noisy, deviation, clean, raw, noise, least):
        """Write the noise's deviation, ``least`` or more, and the noisy logits (E,) of a row."""
        for e in range(len(clean)):
            x = np.float64(raw[e])
            deviation[e] = max(x, 0.0) + math.log1p(math.exp(-abs(x))) + least
            noisy[e] = clean[e] + noise[e] * deviation[e]

    @inlined
    def _choose(order, noisy):
        """Write the numbers of the largest noisy logits (E,), in descending order."""
        for place in range(len(order)):
            best = -1
            for e in range(len(noisy)):
                free = True
                for earlier in range(place):
                    free = free and order[earlier] != e
                if free and (best < 0 or noisy[e] > noisy[best]):
                    best = e
            order[place] = best

    @inlined
    def _gap(e, clean, noisy, deviation, order):
        """How far an expert's logit is above what it competes with, in deviations; its rival."""
        k = len(order) - 1
        rival = order[k] if noisy[e] >= noisy[order[k - 1]] else order[k - 1]
        return (clean[e] - noisy[rival]) / deviation[e], rival

    @inlined
    def _route(gates, importance, load, noisy, deviation, order, clean):
        """Write the gates (k,) of a row; add to the importance and the smooth load (E,)."""
        k, E = len(gates), len(clean)
        total = 0.0
        for place in range(k):
            gates[place] = math.exp(noisy[order[place]] - noisy[order[0]])
            total += gates[place]
        for place in range(k):
            gates[place] /= total
            importance[order[place]] += gates[place]
        if k < E:
            for e in range(E):
                gap, _ = _gap(e, clean, noisy, deviation, order)
                load[e] += 0.5 + 0.5 * math.erf(gap * math.sqrt(0.5))

    @inlined
    def _own_loss(of_logits, logits, target, share):
        """The experts' own loss of a row; writes its gradient (E,)."""
        own = 0.0
        for e in range(len(logits)):
            x = np.float64(logits[e])
            own += share[e] * _cross_entropy(x, target)
            of_logits[e] = share[e] * (_sigmoid(x) - target)
        return own

    @inlined
    def _through_gates(of_logits, of_noisy, of_logit, logits, gates, order, slope):
        """Add a row's gradients through its gates; ``slope``: that of the importance (E,)."""
        inner = 0.0
        for place in range(len(gates)):
            e = order[place]
            of_logits[e] += of_logit * gates[place]
            inner += gates[place] * (of_logit * logits[e] + slope[e])
        for place in range(len(gates)):
            e = order[place]
            of_noisy[e] += gates[place] * (of_logit * logits[e] + slope[e] - inner)

    @inlined
    def _through_load(of_noisy, of_clean, of_raw, slope, clean, noisy, deviation, order):
        """Add a row's gradients through the smooth load, whose own is ``slope`` (E,)."""
        for e in range(len(clean)):
            gap, rival = _gap(e, clean, noisy, deviation, order)
            density = math.exp(-0.5 * gap * gap) / math.sqrt(2.0 * math.pi)
            of_gap = slope[e] * density / deviation[e]
            of_clean[e] += of_gap
            of_noisy[rival] -= of_gap
            of_raw[e] -= of_gap * gap

    @compiled
    def _mixture_loss(outputs, batch, settings, slopes):
        """The loss of :meth:`model.MoEDetector.loss`, and its gradient.

        Args:
            outputs: logits of the experts and of the router, what the noise's deviation is the
                softplus of, and the noise, (B, E) each. The last two are not used if all run.
            batch: ``allowed`` (B, E) bool, ``target`` (B,) and ``share`` (B, E) of a
                :class:`training.batches.Batch`.
            settings: k, the weights of the balance loss and of the experts' own loss; and
                ``LEAST_DEVIATION`` and ``FORBIDDEN``, since a kernel that is cached on disk would
                keep the constants of another file.
            slopes: arrays (B, E) for the gradients of the first three outputs.

        Returns:
            The loss, the mixture's part and the balance loss.
        """
        logits, clean, raw, noise = outputs
        allowed, target, share = batch
        k, of_balance, of_own, least, forbidden = settings
        of_logits, of_clean, of_raw = slopes
        B, E = logits.shape
        clean = np.where(allowed, clean.astype(np.float64), forbidden)
        noisy, deviation = clean.copy(), np.ones((B, E))
        order = np.empty((B, min(k + 1, E)), np.int64)
        gates = np.empty((B, k))
        importance, load, of_importance, of_load = np.zeros((4, E))
        for b in range(B):
            if k < E:
                _add_noise(noisy[b], deviation[b], clean[b], raw[b], noise[b], least)
            _choose(order[b], noisy[b])
            _route(gates[b], importance, load, noisy[b], deviation[b], order[b], clean[b])
        balance = _spread(importance, of_importance)
        if k < E:
            balance += _spread(load, of_load)
        mixture, own = 0.0, 0.0
        of_row, of_noisy, of_open, of_deviation = np.empty((4, E))
        for b in range(B):
            of_noisy[:], of_open[:], of_deviation[:] = 0.0, 0.0, 0.0
            own += _own_loss(of_row, logits[b], target[b], share[b])
            of_row *= of_own
            logit = 0.0
            for place in range(k):
                logit += gates[b, place] * logits[b, order[b, place]]
            mixture += _cross_entropy(logit, target[b]) / B
            of_logit = (_sigmoid(logit) - target[b]) / B
            slope = of_balance * of_importance
            _through_gates(of_row, of_noisy, of_logit, logits[b], gates[b], order[b], slope)
            if k < E:
                state = clean[b], noisy[b], deviation[b], order[b]
                _through_load(of_noisy, of_open, of_deviation, of_balance * of_load, *state)
            of_logits[b] = of_row
            for e in range(E):
                of_clean[b, e] = of_open[e] + of_noisy[e] if allowed[b, e] else 0.0
                of_softplus = of_deviation[e] + of_noisy[e] * noise[b, e] if k < E else 0.0
                of_raw[b, e] = of_softplus * _sigmoid(raw[b, e])
        return mixture + of_balance * balance + of_own * own, mixture, balance


class _MixtureLoss(torch.autograd.Function):
    """The kernel as a function of the experts' logits (E, B) and of the router's weights (E, d)."""

    @staticmethod
    def forward(ctx, logits, clean, noise, batch, drawn, settings):
        x = batch.inputs
        open_ = F.linear(x, clean)  # (B, E)
        # If all experts run there is no noise, and the kernel does not look at it.
        noisy = (open_, open_) if drawn is None else (F.linear(x, noise), drawn)
        outputs = tuple(arrays_of([logits.T, open_, *noisy]))
        allowed = batch.allowed
        allowed = torch.ones_like(open_, dtype=torch.bool) if allowed is None else allowed
        given = tuple(arrays_of([allowed, batch.target, batch.share.T.expand_as(open_)]))
        slopes = tuple(np.empty_like(array) for array in outputs[:3])
        losses = _mixture_loss(outputs, given, settings, slopes)
        ctx.x, ctx.slopes, ctx.noisy = x, slopes, drawn is not None
        losses = [logits.new_tensor(loss) for loss in losses]
        ctx.mark_non_differentiable(*losses[1:])
        return tuple(losses)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, *_):
        of_logits, of_clean, of_raw = (torch.from_numpy(slope) * grad for slope in ctx.slopes)
        of_noise = of_raw.t() @ ctx.x if ctx.noisy else None
        return of_logits.T, of_clean.t() @ ctx.x, of_noise, None, None, None


def mixture_loss(detector, batch, recipe, stream):
    """:meth:`model.MoEDetector.loss` with one gradient for the router and what follows it.

    Arguments and result are the same; for float32 on the CPU while numba is there.
    """
    router = detector.router
    each = batch.inputs if batch.each is None else batch.each
    logits = detector.experts(each, generator=stream.weights)  # (E, B)
    drawn = None
    if router.k < detector.n_experts:
        drawn = torch.randn(logits.T.shape, generator=stream.draws)
    own_weight = recipe.own_weight if detector.n_experts > 1 else 0.0
    settings = router.k, float(recipe.balance_weight), float(own_weight)
    settings += LEAST_DEVIATION, FORBIDDEN
    weights = router.clean.weight, router.noise.weight
    return MixtureLoss(*_MixtureLoss.apply(logits, *weights, batch, drawn, settings))
