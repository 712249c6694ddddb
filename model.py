"""The networks of Swift Hydra: Beta C-VAE (M2), Mamba and the mixture of Mamba experts (M3, M9).

Papers: Do et al., "Swift Hydra: Self-Reinforcing Generative Framework for Anomaly Detection with
Multiple Mamba Models" (ICLR 2025); Gu and Dao, "Mamba" (2023); Higgins et al., "beta-VAE" (2017);
Shazeer et al., "Outrageously Large Neural Networks" (2017) for noisy top-k gating.

Glossary (symbol, meaning, shape)
    x, d      a standardised table row and its number of features        (B, d)
    y         label, 0 normal, 1 anomaly                                 (B,)
    z         latent of the Beta C-VAE                                   (B, d_latent)
    T         tokens of a row: groups of features, scanned by Mamba
    E, k      experts, experts that run for one row
    W(x)      the detector's probability of anomaly; networks return its logit
    G         groups evaluated together in one batched computation: the experts
    d_model, d_inner, d_state, dt_rank, d_conv    Mamba's own names, as in mamba_ssm.Mamba
    gates     router weights of a row, k of them non-zero, sum 1         (B, E)
    load      how many rows each expert was chosen for                   (E,)
"""

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from swift_hydra.geometry import effective_rank, spread_over
from swift_hydra.scan import numba_scan
from swift_hydra.scan.backends import choose_backend, official_scan
from swift_hydra.scan.torch_scan import selective_scan

# Up to this many features, scoring computes the tokens of an expert's rows by one dense product.
DENSE = 128
FORBIDDEN = -1e4  # gate (before the softmax) of an expert that may not run: no noise outweighs it
LEAST_DEVIATION = 1e-2  # of the router's noise
TIED = 2.0**-20  # gates (before the softmax) that differ by less are taken for equal
# Matrix products get a multiple of this many rows. Otherwise another kernel would round the last
# rows in another way, and a row's score would depend on the rows beside it.
ROW_BLOCK = 16
FEWEST_TERMS = 400  # of fewer, torch computes a product itself, with another rounding
FEWEST = 4  # fewest experts that :func:`choose_n_experts` returns: one for every fold


# --- Beta C-VAE (M2) ------------------------------------------------------------------------------


class CVAELoss(NamedTuple):
    """The loss of a batch and its parts, scalars."""

    total: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor  # without its weight beta


class BetaCVAE(nn.Module):
    """Conditional VAE whose encoder and decoder also see the label (M2; beta weights the KL).

    Args:
        d_features: number of features d.
        d_latent: size of z.
        d_hidden: width of the two hidden layers.
        beta: weight of KL(q(z | x, y) || N(0, I)).

    Raises:
        ValueError: if a size is not positive or beta is negative.
    """

    # exp() of anything outside overflows or stops the gradient on unusual rows.
    LOG_VARIANCE = (-8.0, 4.0)

    def __init__(self, d_features, d_latent=16, d_hidden=64, beta=0.2):
        super().__init__()
        if min(d_features, d_latent, d_hidden) < 1 or beta < 0:
            raise ValueError(
                f"sizes must be positive, beta not negative: {d_features=}, {d_latent=}, "
                f"{d_hidden=}, {beta=}"
            )
        self.config = {
            "d_features": d_features,
            "d_latent": d_latent,
            "d_hidden": d_hidden,
            "beta": beta,
        }
        self.d_latent = d_latent
        self.beta = beta
        self.encoder = nn.Sequential(
            nn.Linear(d_features + 1, d_hidden), nn.SiLU(), nn.Linear(d_hidden, d_hidden), nn.SiLU()
        )
        self.to_mean = nn.Linear(d_hidden, d_latent)
        self.to_log_variance = nn.Linear(d_hidden, d_latent)
        self.decoder = nn.Sequential(
            nn.Linear(d_latent + 1, d_hidden),
            nn.SiLU(),
            nn.Linear(d_hidden, d_hidden),
            nn.SiLU(),
            nn.Linear(d_hidden, d_features),
        )

    def encode(self, x, y):
        """Mean and clamped log-variance of q(z | x, y), (B, d_latent) each; x (B, d), y (B,)."""
        h = self.encoder(torch.cat([x, y[:, None].to(x.dtype)], dim=1))  # (B, d_hidden)
        return self.to_mean(h), self.to_log_variance(h).clamp(*self.LOG_VARIANCE)

    def decode(self, z, y):
        """Mean of p(x | z, y), (B, d), from z (B, d_latent) and y (B,)."""
        return self.decoder(torch.cat([z, y[:, None].to(z.dtype)], dim=1))

    def loss(self, x, y, generator=None):
        """Squared error plus beta times KL, each averaged over the rows.

        This is the definition. Training computes it together with its gradient, in
        ``training.gradients.of_cvae``; a test holds the two to the same bits.

        Args:
            x: (B, d).
            y: (B,) labels.
            generator: source of the noise; None takes the global stream.

        Returns:
            A :class:`CVAELoss`.
        """
        mean, log_variance = self.encode(x, y)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
        z = mean + noise * (0.5 * log_variance).exp()  # (B, d_latent)
        reconstruction = (x - self.decode(z, y)).square().sum(1).mean()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1).mean()
        return CVAELoss(reconstruction + self.beta * kl, reconstruction, kl)

    @torch.no_grad()
    def residual(self, x):
        """Distance of every row to its reconstruction as a normal row: (B,).

        That is ||x - p(x | E[z | x, 0], 0)||.
        """
        rows = whole_blocks(x)
        y = torch.zeros(len(rows), dtype=x.dtype, device=x.device)
        return (rows - self.decode(self.encode(rows, y)[0], y)).norm(dim=1)[: len(x)]


# --- Mamba ----------------------------------------------------------------------------------------


class Mamba(nn.Module):
    """Drop-in for ``mamba_ssm.Mamba``: the same arguments and state_dict keys, on any device.

    Shape: (B, L, d_model) -> (B, L, d_model). ``use_fast_path`` allows compiled kernels where they
    can run; ``layer_idx`` is kept for compatibility (it only matters for step-by-step decoding,
    which is not included).

    Raises:
        ValueError: if the input is not (B, L, d_model).
    """

    def __init__(  # noqa: PLR0913  mamba_ssm's own arguments
        self,
        d_model,
        d_state=16,
        d_conv=4,
        expand=2,
        dt_rank="auto",
        dt_min=0.001,
        dt_max=0.1,
        dt_init="random",
        dt_scale=1.0,
        dt_init_floor=1e-4,
        conv_bias=True,
        bias=False,
        use_fast_path=True,
        layer_idx=None,
        device=None,
        dtype=None,
    ):
        super().__init__()
        kw = {"device": device, "dtype": dtype}
        self.d_model = d_model
        self.d_state = d_state
        self.d_conv = d_conv
        self.expand = expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.use_fast_path = use_fast_path
        self.layer_idx = layer_idx
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias, **kw)
        self.conv1d = nn.Conv1d(
            self.d_inner,
            self.d_inner,
            d_conv,
            groups=self.d_inner,
            padding=d_conv - 1,
            bias=conv_bias,
            **kw,
        )
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False, **kw)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner, bias=True, **kw)
        spread = self.dt_rank**-0.5 * dt_scale
        if dt_init == "constant":
            nn.init.constant_(self.dt_proj.weight, spread)
        elif dt_init == "random":
            nn.init.uniform_(self.dt_proj.weight, -spread, spread)
        else:
            raise ValueError(f"dt_init must be 'random' or 'constant', however: {dt_init=}")
        # The bias is the inverse softplus of a step size drawn log-uniformly from [dt_min, dt_max].
        dt = torch.exp(
            torch.rand(self.d_inner, **kw) * math.log(dt_max / dt_min) + math.log(dt_min)
        )
        dt = dt.clamp(min=dt_init_floor)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.A_log = nn.Parameter(
            torch.arange(1, d_state + 1, device=device).float().log().repeat(self.d_inner, 1)
        )
        self.D = nn.Parameter(torch.ones(self.d_inner, device=device))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **kw)

    def forward(self, hidden_states):
        if hidden_states.ndim != 3 or hidden_states.shape[-1] != self.d_model:
            raise ValueError(
                f"expected (B, L, {self.d_model}), however: {tuple(hidden_states.shape)=}"
            )
        parameters = {name: value.unsqueeze(0) for name, value in self.named_parameters()}
        backend = "auto" if self.use_fast_path else "torch"
        return mamba_mixer(parameters, hidden_states.unsqueeze(0), backend).squeeze(0)


def mamba_mixer(p, x, backend="auto"):
    """One Mamba block for G groups at once.

    Args:
        p: stacked parameters under mamba-ssm's names, a leading group axis on each.
        x: (G, B, L, d_model).
        backend: see :func:`choose_backend`.

    Returns:
        (G, B, L, d_model).
    """
    G, rows, L, _ = x.shape
    backend = choose_backend(backend, x.device)
    N = p["A_log"].shape[-1]
    rank = p["dt_proj.weight"].shape[-1]

    def linear(t, name):
        weight = p[f"{name}.weight"].transpose(1, 2)
        out = torch.matmul(t.reshape(G, rows * L, -1), weight)  # (G, B * L, out)
        if f"{name}.bias" in p:
            out = out + p[f"{name}.bias"][:, None]
        return out.view(G, rows, L, -1)

    xz = linear(x, "in_proj")  # (G, B, L, 2 * d_inner)
    if backend == "numba" and xz.dtype == torch.float32:
        return linear(numba_scan.mamba_inner(xz, p), "out_proj")
    u, gate = xz.chunk(2, dim=-1)  # (G, B, L, d_inner) each
    taps = p["conv1d.weight"].shape[-1]
    padded = F.pad(u, (0, 0, taps - 1, 0))  # causal: token t sees t - taps + 1 .. t
    weight = p["conv1d.weight"][:, :, 0]  # (G, d_inner, taps)
    # Shifted adds beat Conv1d.
    conv = sum(padded[:, :, j : j + L] * weight[:, None, None, :, j] for j in range(taps))
    if "conv1d.bias" in p:
        conv = conv + p["conv1d.bias"][:, None, None]
    u = F.silu(conv)  # (G, B, L, d_inner)
    dt, B, C = linear(u, "x_proj").split([rank, N, N], dim=-1)
    to_delta = p["dt_proj.weight"].transpose(1, 2)
    delta = torch.matmul(dt.reshape(G, rows * L, rank), to_delta).view_as(u)
    delta = F.softplus(delta + p["dt_proj.bias"][:, None, None])  # (G, B, L, d_inner)
    scan = official_scan if backend == "official" else selective_scan
    y = scan(u, delta, -torch.exp(p["A_log"].float()), B, C, p["D"].float())
    return linear(y * F.silu(gate), "out_proj")


# --- experts: the detectors that are mixed (M3, M9) -----------------------------------------------


class MambaExperts(nn.Module):
    """E small Mamba detectors with stacked parameters, computed together.

    A row is cut into T tokens of neighbouring features. Each expert has its own order of the
    features, which makes the experts differ. Mamba scans the tokens, and a small head reads all of
    them, not their mean.

    Args:
        d_features: features of a row.
        n_experts: E.
        n_tokens: most tokens of a row; a token has at least two features.
        d_model: Mamba's.
        d_state: Mamba's.
        d_head: width of the head.
        dropout: dropout rate of the head, while training.
    """

    def __init__(
        self, d_features, n_experts, n_tokens=8, d_model=16, d_state=4, d_head=64, dropout=0.1
    ):
        super().__init__()
        self.n_experts = n_experts
        self.dropout = dropout
        self.backend = "auto"
        # No product of so many rows has fewer terms (but one of a single column, see below).
        least = ROW_BLOCK * min(d_head, 2 * d_model)
        self.row_block = ROW_BLOCK * math.ceil(FEWEST_TERMS / least)
        width = max(1, math.ceil(d_features / n_tokens), min(2, d_features))
        self.n_tokens = tokens = math.ceil(d_features / width)
        order = []
        for _ in range(n_experts):  # index d_features points at a column of zeros
            # By a function whose memory :func:`snapshot.read_network` limits: a file may say any
            # width.
            padding = torch.zeros(tokens * width - d_features, dtype=torch.int64) + d_features
            order.append(torch.cat([torch.randperm(d_features), padding]))
        self.register_buffer("order", torch.stack(order))  # (E, T * width)
        weight = torch.randn(n_experts, tokens, width, d_model) * width**-0.5
        self.token_weight = nn.Parameter(weight)
        self.token_bias = nn.Parameter(torch.randn(n_experts, tokens, 1, d_model) * 0.1)
        self.norm_weight = nn.Parameter(torch.ones(n_experts, d_model))
        blocks = [Mamba(d_model, d_state=d_state) for _ in range(n_experts)]
        self.mamba = nn.ParameterDict(
            {
                name.replace(".", "/"): stacked([dict(b.named_parameters())[name] for b in blocks])
                for name, _ in blocks[0].named_parameters()
            }
        )
        flat = tokens * d_model
        first = [nn.Linear(flat, d_head) for _ in range(n_experts)]
        last = [nn.Linear(d_head, 1) for _ in range(n_experts)]
        self.head_weight = stacked([layer.weight.T for layer in first])  # (E, T * d_model, d_head)
        self.head_bias = stacked([layer.bias[None] for layer in first])
        self.out_weight = stacked([layer.weight.T for layer in last])  # (E, d_head, 1)
        self.out_bias = stacked([layer.bias[None] for layer in last])

    def forward(self, x, experts=None, generator=None):
        """Logits (E, B) of the rows x (B, d).

        Args:
            x: (B, d), or (E, B, d) where each expert sees the rows differently.
            experts: a slice: only these experts run; None runs all.
            generator: source of dropout's random numbers.
        """

        def of(value):
            """The part of stacked parameters (E, ..) that belongs to the experts that run."""
            return value if experts is None else value[experts]

        # A single column's product has fewer than 400 terms where rows are few: torch multiplies
        # these itself, and adds the bias with another rounding than the library it calls for more.
        if experts is not None and 1 < x.shape[1] <= DENSE:
            tokens = self._embed_dense(x, of)
        else:
            features = self._features_of_tokens(x, of(self.order))
            if self._learns_by_hand(features):
                return self._by_hand(features, of, generator)
            tokens = self._embed(features, of)  # (G, B, T, d_model)
        scale = torch.rsqrt(tokens.square().mean(-1, keepdim=True) + numba_scan.EPSILON)
        normed = tokens * scale * of(self.norm_weight)[:, None, None]
        tokens = tokens + mamba_mixer(self._mamba_of(of), normed, self.backend)
        h = torch.baddbmm(of(self.head_bias), tokens.flatten(2), of(self.head_weight))
        h = F.silu(h)  # (G, B, d_head)
        h = dropped_out(h, self.dropout, self.training, generator)
        return torch.baddbmm(of(self.out_bias), h, of(self.out_weight)).squeeze(-1)  # (G, B)

    def _features_of_tokens(self, x, order):
        """The features of every token, (G * T, B, width), in each expert's own ``order``."""
        padded = F.pad(x, (0, 1))  # (B, d + 1) or (G, B, d + 1), the last column is zero
        B = padded.shape[-2]
        G, T = len(order), self.n_tokens
        if x.dim() == 2:
            features = padded[:, order.reshape(-1)].view(B, G * T, -1)
            return features.transpose(0, 1)
        features = padded.gather(2, order[:, None].expand(-1, B, -1)).view(G, B, T, -1)
        return features.transpose(1, 2).flatten(0, 1)

    def _embed(self, features, of):
        """The tokens (G, B, T, d_model), each a linear map of its features (G * T, B, width)."""
        bias = of(self.token_bias)
        tokens = torch.matmul(features, of(self.token_weight).flatten(0, 1))
        tokens = tokens.view(len(bias), self.n_tokens, features.shape[1], -1) + bias
        return tokens.transpose(1, 2)

    def _embed_dense(self, x, of):
        """The tokens (G, B, T, d_model) of rows x (B, d) by one product with a mostly empty matrix.

        This is faster than gathering the features.
        """
        order, weight, bias = of(self.order), of(self.token_weight), of(self.token_bias)
        G, T, width, d_model = weight.shape
        token = torch.arange(T, device=x.device).repeat_interleave(width)  # (T * width,)
        dense = x.new_zeros(G, x.shape[1] + 1, T, d_model)
        dense[torch.arange(G, device=x.device)[:, None], order, token] = weight.flatten(1, 2)
        flat = torch.baddbmm(bias.reshape(G, 1, -1), x.expand(G, -1, -1), dense[:, :-1].flatten(2))
        return flat.view(G, len(x), T, d_model)

    def _mamba_of(self, of):
        """The parameters of the Mamba blocks under mamba-ssm's names."""
        return {name.replace("/", "."): of(value) for name, value in self.mamba.items()}

    def _learns_by_hand(self, features):
        """Whether the experts learn from these inputs by :meth:`_by_hand`."""
        learns = self.training and torch.is_grad_enabled() and not features.requires_grad
        return learns and self.backend == "numba" and features.dtype == torch.float32

    def _by_hand(self, features, of, generator):
        """What :meth:`forward` returns, with a gradient worked out by hand, which is faster."""
        shape = (len(of(self.order)), features.shape[1], self.head_weight.shape[-1])
        kept = dropout_factors(shape, self.dropout, self.training, generator)
        own = {name: of(value) for name, value in self.named_parameters(recurse=False)}
        return numba_scan.experts(features, kept, own | self._mamba_of(of))


class MLPExperts(nn.Module):
    """The control arm of :class:`MambaExperts`: MLPs with about as many parameters.

    Each has two hidden layers.
    """

    row_block = ROW_BLOCK

    def __init__(self, d_features, n_experts, dropout=0.1, **mamba_settings):
        super().__init__()
        self.n_experts = n_experts
        self.dropout = dropout
        self.backend = "auto"
        like = MambaExperts(d_features, 1, dropout=dropout, **mamba_settings)
        budget = sum(p.numel() for p in like.parameters())
        # Number of parameters for width h: h (d + 1) + h (h + 1) + h + 1 = h^2 + (d + 3) h + 1.
        width = round((-(d_features + 3) + math.sqrt((d_features + 3) ** 2 + 4 * (budget - 1))) / 2)
        sizes = [d_features, width, width, 1]
        layers = [[nn.Linear(a, b) for _ in range(n_experts)] for a, b in itertools.pairwise(sizes)]
        self.weights = nn.ParameterList(
            [stacked([layer.weight.T for layer in group]) for group in layers]
        )
        self.biases = nn.ParameterList(
            [stacked([layer.bias[None] for layer in group]) for group in layers]
        )

    def forward(self, x, experts=None, generator=None):
        """As :meth:`MambaExperts.forward`."""
        pick = slice(None) if experts is None else experts
        h = x.expand(len(self.biases[0][pick]), *x.shape[-2:])  # (G, B, d)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i:
                h = dropped_out(F.silu(h), self.dropout, self.training, generator)
            h = torch.matmul(h, weight[pick]) + bias[pick]
        return h.squeeze(-1)  # (G, B)


# --- router and mixture (M9) ----------------------------------------------------------------------


class RouterOutput(NamedTuple):
    """Which experts rows of a batch were given to."""

    gates: torch.Tensor  # (B, E), k non-zero per row, rows sum to 1
    load: torch.Tensor  # (E,) rows each expert was chosen for; sums to k * B exactly
    balance_loss: torch.Tensor  # scalar


class Router(nn.Module):
    """Noisy top-k gating (Shazeer et al. 2017, section 2.1 and appendix A; M9).

    H = clean + N(0, 1) * softplus(noise) while training; the k largest stay; softmax over those.
    Noise makes the choice probabilistic, which is the first cure for winner-take-all; the balance
    loss on importance and on the smooth load (the probability of being chosen under fresh noise) is
    the second; the experts' own loss in pretrain.py the third.

    Args:
        d_features: d.
        n_experts: E.
        k: experts that are chosen for a row.

    Raises:
        ValueError: if k is not from 1 to E.
    """

    def __init__(self, d_features, n_experts, k=2):
        super().__init__()
        if not 1 <= k <= n_experts:
            raise ValueError(
                f"k must be between 1 and the number of experts, however: {k=}, {n_experts=}"
            )
        self.k = k
        self.clean = nn.Linear(d_features, n_experts, bias=False)
        self.noise = nn.Linear(d_features, n_experts, bias=False)
        # Zeros would let the first k win every tie.
        nn.init.normal_(self.clean.weight, std=0.1 * d_features**-0.5)
        nn.init.zeros_(self.noise.weight)

    def forward(self, x, allowed=None, generator=None):
        """Route rows.

        Args:
            x: (B, d).
            allowed: (B, E) bool, experts a row may use, or None for all. If fewer than k are
                allowed, others fill the k places with gates of 0; they still count in ``load``.
            generator: source of the noise while training.
        """
        logits = self.clean(x)  # (B, E)
        E = logits.shape[1]
        if allowed is not None:
            logits = logits.masked_fill(~allowed, FORBIDDEN)
        if self.training and self.k < E:
            deviation = F.softplus(self.noise(x)) + LEAST_DEVIATION  # (B, E)
            noise = torch.randn(logits.shape, generator=generator, dtype=logits.dtype)
            noisy = logits + noise.to(logits.device) * deviation
        else:
            noisy = logits
            deviation = None
        top, index = noisy.topk(min(self.k + 1, E), dim=1)  # (B, k + 1)
        kept = index[:, : self.k]
        gates = torch.zeros_like(logits).scatter(1, kept, top[:, : self.k].softmax(1))  # (B, E)
        load = torch.bincount(kept.reshape(-1), minlength=E).to(logits.dtype)
        balance = _cv_squared(gates.sum(0))
        if deviation is not None:
            balance = balance + _cv_squared(self.smooth_load(logits, noisy, deviation, top))
        return RouterOutput(gates, load, balance)

    def smooth_load(self, logits, noisy, deviation, top):
        """Expected load (E,): P(expert is among the k if its noise is drawn again), over the rows.

        Args:
            logits: (B, E), ``FORBIDDEN`` for experts that a row may not use: these are never
                chosen, and an expert that has only such rivals always is.
            noisy: (B, E) logits with noise.
            deviation: (B, E) standard deviation of the noise.
            top: (B, k + 1) largest noisy logits, descending.
        """
        last = top[:, self.k - 1 : self.k]
        # The threshold of a chosen expert is the (k+1)-th value, of any other the k-th.
        threshold = torch.where(noisy >= last, top[:, self.k : self.k + 1], last)  # (B, E)
        gap = (logits - threshold) / deviation
        return (0.5 + 0.5 * torch.erf(gap * math.sqrt(0.5))).sum(0)


EXPERTS = {"mamba": MambaExperts, "mlp": MLPExperts}


class MoEOutput(NamedTuple):
    """The logits of a batch."""

    logit: torch.Tensor  # (B,) gate-weighted
    expert_logits: torch.Tensor  # (E, B)
    router: RouterOutput


class MixtureLoss(NamedTuple):
    """The loss of a batch and two of its parts, scalars; the third is that of each expert alone."""

    total: torch.Tensor
    mixture: torch.Tensor
    balance: torch.Tensor  # without its weight


class MoEDetector(nn.Module):
    """Mixture of Mamba experts (M9); with one expert it is the single detector (M3).

    ``forward`` is the dense form used in training: all experts on all rows, masked by the gates.
    ``score`` is the sparse form used afterwards: a row is computed by its k experts only, with the
    same scores up to float32 rounding.

    Args:
        d_features: d.
        n_experts: E.
        k: experts that run for one row; more than E means E.
        block: the experts' kind, a key of ``EXPERTS``.
        backend: see :func:`scan.backends.choose_backend`.
        expert_settings: arguments of that kind.
    """

    def __init__(
        self, d_features, n_experts=4, k=2, block="mamba", backend="auto", **expert_settings
    ):
        super().__init__()
        self.config = {
            "d_features": d_features,
            "n_experts": n_experts,
            "k": k,
            "block": block,
            **expert_settings,
        }
        self.d_features = d_features
        self.n_experts = n_experts
        self.experts = EXPERTS[block](d_features, n_experts, **expert_settings)
        self.router = Router(d_features, n_experts, min(k, n_experts))
        self.backend = backend

    @property
    def backend(self):
        """The Mamba backend of the experts, see :func:`scan.backends.choose_backend`."""
        return self.experts.backend

    @backend.setter
    def backend(self, name):
        self.experts.backend = name

    def forward(self, x, allowed=None, stream=None, each=None):
        """All experts on all rows.

        Args:
            x: (B, d).
            allowed: see :class:`Router`.
            stream: random streams: ``draws`` for the router's noise, ``weights`` for dropout; None
                takes torch's global one.
            each: (E, B, d) the rows as each expert sees them, where these differ from x, which the
                router sees.

        Raises:
            ValueError: for rows with another number of features.
        """
        if x.shape[-1] != self.d_features:
            raise ValueError(
                f"expected rows of {self.d_features} features, however: {tuple(x.shape)=}"
            )
        weights, draws = stream or (None, None)
        routed = self.router(x, allowed, draws)
        logits = self.experts(x if each is None else each, generator=weights)  # (E, B)
        return MoEOutput((routed.gates.T * logits).sum(0), logits, routed)

    def loss(self, batch, recipe, stream):
        """Cross-entropy of the mixture and of each expert on its own, and the balance loss.

        training/gradients.py has the same in one compiled kernel.

        Args:
            batch: a :class:`training.batches.Batch`.
            recipe: has ``balance_weight`` and ``own_weight``, see :class:`pretrain.Recipe`.
            stream: see :meth:`forward`.

        Returns:
            A :class:`MixtureLoss`; a single expert has no loss of its own.
        """
        out = self(batch.inputs, batch.allowed, stream, batch.each)
        mixture = F.binary_cross_entropy_with_logits(out.logit, batch.target)
        balance = out.router.balance_loss
        total = mixture + recipe.balance_weight * balance
        if self.n_experts > 1:
            target = batch.target.expand(self.n_experts, -1)  # (E, B)
            own = F.binary_cross_entropy_with_logits(
                out.expert_logits, target, batch.share, reduction="sum"
            )
            total = total + recipe.own_weight * own
        return MixtureLoss(total, mixture, balance)

    @torch.no_grad()
    def score(self, x, batch=2048):
        """Logits (B,) of the rows x (B, d), computed by the chosen experts alone.

        Puts the network into eval mode. An expert gets ``batch`` rows at a time on average, however
        many experts there are, which bounds the memory.
        """
        self.eval()
        chunks = x.split(batch * self.n_experts // self.router.k)
        return torch.cat([self._score_chunk(rows) for rows in chunks]) if len(x) else x.new_zeros(0)

    @torch.no_grad()
    def route(self, x):
        """Gates and numbers of the experts that run for rows x (B, d): (B, k) each.

        The largest gate comes first.
        """
        # In float64, since the rounding of a float32 product depends on a row's place in the batch.
        # Nearly equal gates are made equal: the first expert is chosen, rounding never decides.
        open_ = x.double() @ self.router.clean.weight.double().T  # (B, E)
        open_ = (open_ / TIED).round_().mul_(TIED).to(x.dtype)
        top = []
        chosen = []
        for _ in range(self.router.k):  # topk takes three times as long for two of 64
            value, index = open_.max(dim=1, keepdim=True)
            open_.scatter_(1, index, -torch.inf)
            top.append(value)
            chosen.append(index)
        return torch.cat(top, dim=1).softmax(1), torch.cat(chosen, dim=1)

    def _score_chunk(self, x):
        gates, expert = (part.flatten() for part in self.route(x))  # (B * k,)
        # A short type sorts seven times as fast.
        by_expert = torch.argsort(expert.to(torch.int16), stable=True)
        rows = by_expert // self.router.k
        gates = gates[by_expert]
        score = x.new_zeros(len(x))
        start = 0
        for index, count in enumerate(torch.bincount(expert, minlength=self.n_experts).tolist()):
            if count:  # an expert that no row chose costs nothing
                mine = slice(start, start + count)
                inputs = whole_blocks(x[rows[mine]], self.experts.row_block)
                logits = self.experts(inputs, slice(index, index + 1))[0][:count]  # (count,)
                score.index_add_(0, rows[mine], gates[mine] * logits)
                start += count
        return score


def choose_n_experts(X):
    """The number of experts for a table, by an explicit rule on its complexity (M9).

    Complexity is the effective rank of the standardised features, exp(entropy of the normalised
    eigenvalues of their covariance): the number of directions in which a table really varies. The
    rule: 4 experts up to an effective rank of 16, twice as many for each further factor of 4 in
    rank, at most 16; and at most one expert per 64 training rows, since each needs rows to learn
    from, but never fewer than 4 (one per fold).

    Args:
        X: (n, d) array of standardised training rows.

    Returns:
        4, 8 or 16, and the effective rank it was derived from.
    """
    rank = effective_rank(X[spread_over(len(X), 4096)])
    wanted = FEWEST * 2 ** max(0, math.ceil(math.log(max(rank, 1e-9) / 16, 4)))
    most = FEWEST * 2 ** max(0, math.floor(math.log2(max(1, len(X) // 64 / FEWEST))))
    return int(min(wanted, most, 16)), rank


# --- helpers --------------------------------------------------------------------------------------


def stacked(tensors):
    """One parameter (E, ..) that holds copies of the tensors of E experts."""
    return nn.Parameter(torch.stack([t.detach() for t in tensors]))


def dropout_factors(shape, share, training, generator=None, device=None):
    """Factors of dropout from a torch Generator (None takes the global one); None: no dropout."""
    if not training or share == 0:
        return None
    kept = torch.empty(shape).bernoulli_(1 - share, generator=generator)
    return kept.to(device).div_(1 - share)


def dropped_out(h, share, training, generator=None):
    """Dropout that draws from a given torch Generator (None takes torch's global one)."""
    factors = dropout_factors(h.shape, share, training, generator, h.device)
    return h if factors is None else h * factors


def _cv_squared(values):
    """Squared coefficient of variation: 0 when all experts carry the same (scalar)."""
    return values.var(unbiased=False) / (values.mean().square() + 1e-8)


def whole_blocks(x, block=ROW_BLOCK):
    """Rows x (B, d), padded with copies of the first row to a multiple of ``block``."""
    missing = -len(x) % block
    return torch.cat([x, x[:1].expand(missing, -1)]) if missing else x
