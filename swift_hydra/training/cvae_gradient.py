"""The Beta C-VAE's gradient worked out by hand, in two thirds of autograd's time (M2).

Autograd's bookkeeping for so small a network costs as much as the arithmetic. The order of the sums
is autograd's, so that for a batch of a power of two all is equal to the bit.
"""

import torch
import torch.nn.functional as F

from swift_hydra.model import CVAELoss

silu_backward = torch.ops.aten.silu_backward


@torch.no_grad()
def loss_and_gradient(cvae, x, y, generator=None):
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
    of_last = _linear_backward(last, F.silu(e), g)
    g = silu_backward(g @ last.weight, e)
    of_fourth = _linear_backward(fourth, F.silu(c), g)
    g = silu_backward(g @ fourth.weight, c)
    of_third = _linear_backward(third, zy, g)
    g = (g @ third.weight)[:, :-1]  # of z
    weight = cvae.beta * share
    of_mean = g + mean * weight
    of_raw = variance * (0.5 * weight) - 0.5 * weight + g * noise * deviation * 0.5
    of_raw *= log_variance == raw  # the clamp stops the others
    heads = [(cvae.to_mean, of_mean), (cvae.to_log_variance, of_raw)]
    of_heads = [part for layer, g in heads for part in _linear_backward(layer, h, g)]
    g = of_raw @ cvae.to_log_variance.weight + of_mean @ cvae.to_mean.weight
    g = silu_backward(g, b)
    of_second = _linear_backward(second, F.silu(a), g)
    of_first = _linear_backward(first, xy, silu_backward(g @ second.weight, a))
    loss = CVAELoss(reconstruction + cvae.beta * kl, reconstruction, kl)
    return loss, [*of_first, *of_second, *of_heads, *of_third, *of_fourth, *of_last]


def _linear(layer, x):
    return F.linear(x, layer.weight, layer.bias)


def _linear_backward(layer, x, grad):
    """Gradients of the layer's weight and bias, from those of its output (B, out)."""
    return grad.t() @ x, grad.sum(0)
