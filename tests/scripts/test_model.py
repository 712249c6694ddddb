"""C-VAE, experts, router, mixture, policy nets: shapes, invariants, and that every part learns."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers import Losses, made_table, standardised, trained_cvae, trained_mixture

from swift_hydra import model
from swift_hydra.cleaning.leave_out import LeaveOut
from swift_hydra.compiled import available
from swift_hydra.detection.mixture import out_of_fold
from swift_hydra.generation.agent import GaussianPolicy
from swift_hydra.journal import Journal
from swift_hydra.model import (
    ROW_BLOCK,
    BetaCVAE,
    Mamba,
    MambaExperts,
    MoEDetector,
    Router,
    choose_n_experts,
    mamba_mixer,
)
from swift_hydra.pretrain import Recipe, new_cvae, train_detector
from swift_hydra.run.record import peak_memory_mib
from swift_hydra.snapshot import pack_network, read_network
from swift_hydra.training import gradients
from swift_hydra.training.batches import Batch, BatchPlan, Examples
from swift_hydra.training.gradients import mixture_loss, of_cvae
from swift_hydra.training.optimise import Adam, Optimiser, one_cycle
from swift_hydra.training.seeds import Streams, streams


@pytest.fixture
def rows():
    return standardised(*made_table())


def unmoved(before, after):
    """Names of the parameters that did not change."""
    return [name for name in before if torch.equal(before[name], after[name])]


# --- Beta C-VAE (M2) ------------------------------------------------------------------------------


def test_cvae_loss_is_finite_and_kl_not_negative_on_extreme_rows():
    torch.manual_seed(0)
    cvae = BetaCVAE(5)
    for scale in (0.0, 1.0, 1e4):
        loss = cvae.loss(torch.randn(8, 5) * scale, torch.tensor([0, 1] * 4))
        assert torch.isfinite(loss.total)
        assert loss.kl >= 0


@pytest.mark.parametrize(
    "d, n, exact", [(1, 128, True), (20, 128, True), (200, 64, True), (9, 100, False)]
)
def test_the_gradient_by_hand_is_autograds(d, n, exact):
    torch.manual_seed(0)
    cvae = new_cvae(d, 0.2)
    with torch.no_grad():
        cvae.to_log_variance.weight.mul_(60)  # some variances are clamped
    x, y = 2 * torch.randn(n, d), torch.arange(n) % 2
    theirs = cvae.loss(x, y, torch.Generator().manual_seed(1))
    theirs.total.backward()
    ours, gradient = of_cvae(cvae, x, y, torch.Generator().manual_seed(1))
    clamped = cvae.encode(x, y)[1]
    assert 0 < (clamped == clamped.clamp(-7.99, 3.99)).float().mean() < 1
    assert [part.item() for part in ours] == [part.item() for part in theirs]
    for mine, (name, p) in zip(gradient, cvae.named_parameters(), strict=True):
        equal = torch.equal if exact else partial(torch.allclose, rtol=1e-4, atol=1e-6)
        assert equal(mine, p.grad), name


def test_cvae_learns_and_all_its_parameters_move(rows):
    X, y = rows
    untrained = streams(0, "cvae").built(lambda: new_cvae(X.shape[1], 0.2))
    losses = Losses()
    cvae = trained_cvae(X, y, steps=250, journal=losses)
    assert not unmoved(dict(untrained.named_parameters()), dict(cvae.named_parameters()))
    sums = [sum(step.values()) for step in losses.steps]
    assert np.mean(sums[-10:]) < 0.7 * np.mean(sums[:10])
    z = torch.zeros(1, cvae.d_latent)
    as_normal, as_anomaly = cvae.decode(z, torch.zeros(1)), cvae.decode(z, torch.ones(1))
    assert (as_normal - as_anomaly).norm() > 0.3  # the label reaches the decoder


def test_beta_weighs_the_kl_term(rows):
    kl = []
    for beta in (0.01, 4.0):
        losses = Losses()
        trained_cvae(*rows, steps=100, beta=beta, journal=losses)
        kl.append(np.mean([step["kl"] for step in losses.steps[-10:]]))
    assert kl[1] < 0.5 * kl[0]


@pytest.mark.skipif(not available(), reason="numba is not installed")
@pytest.mark.parametrize("d, n_experts, dropout", [(1, 1, 0.1), (7, 4, 0.1), (40, 4, 0.0)])
@pytest.mark.parametrize("each", [False, True])
def test_what_experts_learn_by_hand_is_autograds(monkeypatch, d, n_experts, dropout, each):
    torch.manual_seed(0)
    experts = MambaExperts(d, n_experts, dropout=dropout).train()
    experts.backend = "numba"
    x = torch.randn(n_experts, 64, d) if each else torch.randn(64, d)
    found = []
    for by_hand in (True, False):
        if not by_hand:
            monkeypatch.setattr(MambaExperts, "_learns_by_hand", lambda *_: False)
        experts.zero_grad()
        logits = experts(x, generator=torch.Generator().manual_seed(1))
        torch.nn.functional.softplus(logits).sum().backward()
        found.append([logits.detach(), *(p.grad for p in experts.parameters())])
    assert all(map(torch.equal, *found))


# --- router (M9) ----------------------------------------------------------------------------------


@pytest.mark.skipif(not available(), reason="needs numba")
@pytest.mark.parametrize("E, k", [(1, 1), (4, 2), (4, 4), (4, 1), (16, 3)])
@pytest.mark.parametrize("kind", ["plain", "folds", "views"])
def test_the_compiled_loss_is_that_of_the_network(E, k, kind):
    """Losses and the gradients of all parameters, up to rounding."""
    torch.manual_seed(E + k)
    B, d = 64, 7
    detector = MoEDetector(d, E, k, backend="numba").train()
    torch.nn.init.normal_(detector.router.noise.weight)
    share = torch.full((E, 1), 1 / (E * B))
    allowed = None
    if kind == "folds" and E > 1:  # one row may see no expert but the last
        allowed = torch.arange(B)[:, None] % E != torch.arange(E)
        allowed[0] = torch.arange(E) == E - 1
        share = (allowed / allowed.sum()).T
    each = torch.randn(E, B, d) if kind == "views" else None
    batch = Batch(torch.randn(B, d), each, allowed, torch.rand(B), share)
    recipe = Recipe(balance_weight=0.5, own_weight=2.0)
    found = []
    for loss_of in (detector.loss, partial(mixture_loss, detector)):
        detector.zero_grad()
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        loss = loss_of(batch, recipe, Streams(*generators))
        (3 * loss.total).backward()
        slopes = [torch.zeros(()) if p.grad is None else p.grad for p in detector.parameters()]
        found.append([part.detach() for part in loss] + slopes)
    for name, theirs, ours in zip(
        ["", "", "", *dict(detector.named_parameters())], *found, strict=True
    ):
        scale = theirs.abs().max().item()
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * scale + 1e-9), name
    assert k == E or found[0][-1].abs().sum() > 0


@pytest.mark.skipif(not available(), reason="needs numba")
def test_no_constant_of_another_file_is_in_the_compiled_loss(monkeypatch):
    """The cache on disk would keep it after a change there: only a kernel's own file is watched."""
    monkeypatch.setattr(model, "LEAST_DEVIATION", 3.0)
    monkeypatch.setattr(gradients, "LEAST_DEVIATION", 3.0)
    torch.manual_seed(0)
    detector = MoEDetector(5, 4, 2, backend="numba").train()
    batch = Batch(torch.randn(32, 5), None, None, torch.rand(32), torch.full((4, 1), 1 / 128))
    recipe = Recipe(balance_weight=0.5, own_weight=2.0)
    theirs, ours = (
        loss_of(batch, recipe, Streams(*(torch.Generator().manual_seed(seed) for seed in (1, 2))))
        for loss_of in (detector.loss, partial(mixture_loss, detector))
    )
    assert torch.allclose(ours.balance, theirs.balance, rtol=1e-4)


@pytest.mark.parametrize(("E", "k"), [(1, 1), (4, 1), (4, 2), (4, 4), (8, 3)])
@pytest.mark.parametrize("train", [True, False])
def test_gates_and_load(E, k, train):
    torch.manual_seed(0)
    router, x = Router(6, E, k).train(train), torch.randn(200, 6)
    out = router(x, generator=torch.Generator().manual_seed(1))
    assert ((out.gates > 0).sum(1) == k).all()
    torch.testing.assert_close(out.gates.sum(1), torch.ones(200))
    assert out.load.sum() == k * 200
    assert torch.isfinite(out.balance_loss)
    assert out.balance_loss >= 0


def test_smooth_load_agrees_with_the_load():
    """Shazeer's estimate is each expert's mean load over the noise, and adds up to k per row."""
    torch.manual_seed(0)
    router, x = Router(6, 8, 2).train(), torch.randn(4000, 6)
    torch.nn.init.normal_(router.clean.weight)
    logits = router.clean(x)
    deviation = torch.full_like(logits, 0.7)
    loads, estimates = [], []
    for _ in range(30):
        noisy = logits + torch.randn(logits.shape) * deviation
        top = noisy.topk(3, dim=1)
        estimates.append(router.smooth_load(logits, noisy, deviation, top.values).detach())
        loads.append(torch.bincount(top.indices[:, :2].flatten(), minlength=8).float())
    load, estimate = (torch.stack(each).mean(0) for each in (loads, estimates))
    torch.testing.assert_close(estimate, load, rtol=0.05, atol=20.0)
    assert abs(estimates[0].sum().item() - 2 * 4000) < 0.03 * 2 * 4000


def test_routing_is_deterministic_without_training_and_respects_the_mask():
    torch.manual_seed(0)
    router, x = Router(6, 4, 2), torch.randn(50, 6)
    assert torch.equal(router.eval()(x).gates, router(x).gates)
    allowed = torch.ones(50, 4, dtype=torch.bool)
    allowed[:, 1] = False
    out = router.train()(x, allowed, torch.Generator().manual_seed(0))
    assert (out.gates[:, 1] == 0).all()
    assert torch.isfinite(out.balance_loss)


# --- mixture (M3, M9) -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "E", "k"), [(1, 1, 1), (2, 4, 2), (9, 4, 4), (33, 8, 2), (200, 4, 2)]
)
def test_sparse_scores_equal_the_dense_form(d, E, k):
    torch.manual_seed(0)
    mixture, x = MoEDetector(d, E, k).eval(), torch.randn(101, d)
    dense = mixture(x)
    torch.testing.assert_close(mixture.score(x, batch=17), dense.logit, rtol=1e-4, atol=1e-5)
    assert dense.expert_logits.shape == (E, 101)
    assert len(mixture.score(x[:0])) == 0


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize(("d", "E", "k"), [(1, 1, 1), (5, 4, 2), (33, 8, 2), (200, 4, 2)])
def test_a_score_does_not_depend_on_the_rows_beside_it(d, E, k, backend):
    torch.manual_seed(0)
    mixture, x = MoEDetector(d, E, k, backend=backend), 30 * torch.randn(1000, d)
    score = mixture.score(x)
    for size in (1, 7, 17, 33, 65, 129, 257, 333, 513):
        assert torch.equal(mixture.score(x[:size]), score[:size])
        assert torch.equal(mixture.score(x[-size:]), score[-size:])


@pytest.mark.parametrize(
    "d, narrow",
    [(1, {}), (2, {}), (5, {}), (5, {"d_head": 1}), (5, {"d_head": 9}), (2, {"d_model": 1})],
)
def test_one_row_gets_the_sums_of_many_where_the_library_rounds_once(d, narrow, monkeypatch):
    def product(bias, a, b):
        """torch.baddbmm on a processor whose library fuses sums; short products are not fused."""
        if a.shape[1] * b.shape[1] * b.shape[2] < 400:
            return bias + torch.bmm(a, b)
        return (bias.double() + torch.bmm(a.double(), b.double())).float()

    monkeypatch.setattr(torch, "baddbmm", product)
    torch.manual_seed(0)
    mixture, x = MoEDetector(d, 4, 2, **narrow), 30 * torch.randn(300, d)
    alone = torch.cat([mixture.score(row[None]) for row in x])
    assert torch.equal(alone, mixture.score(x))


def test_only_chosen_experts_run(monkeypatch):
    torch.manual_seed(0)
    mixture, x = MoEDetector(5, 8, 2).eval(), torch.randn(64, 5)
    torch.nn.init.zeros_(mixture.router.clean.weight)
    with torch.no_grad():
        mixture.router.clean.weight[3:5] = torch.tensor([[5.0], [4.0]]) * torch.sign(torch.ones(5))
    ran = []
    forward = MambaExperts.forward
    monkeypatch.setattr(
        MambaExperts,
        "forward",
        lambda self, x, e=None: ran.append((e, len(x))) or forward(self, x, e),
    )
    positive = x[x.sum(1) > 0]
    mixture.score(positive)
    assert {e.start for e, _ in ran} == {3, 4}
    assert 2 * len(positive) <= sum(n for _, n in ran) < 2 * (len(positive) + ROW_BLOCK)


def test_every_expert_and_the_router_learn(rows):
    X, y = rows
    untrained = streams(0, "detector").built(lambda: MoEDetector(X.shape[1], n_experts=4, k=2))
    losses = Losses()
    mixture = trained_mixture(X, y, steps=60, journal=losses)
    before, after = dict(untrained.named_parameters()), dict(mixture.named_parameters())
    assert not unmoved(before, after)
    for name in before:
        if name.startswith("experts."):
            change = (before[name] - after[name]).flatten(1).abs().amax(1)  # (E,)
            assert (change > 0).all(), f"{name}: an expert stood still"
    loss = [step["detector_loss"] for step in losses.steps]
    assert np.mean(loss[-10:]) < 0.8 * np.mean(loss[:10])
    load = mixture.router(X).load
    assert (load > 0.02 * load.sum()).all()  # no winner takes all
    block = Mamba(16, d_state=4)
    # An expert's weights are a plain Mamba block's.
    named = {name.replace("/", "."): value for name, value in mixture.experts.mamba.items()}
    block.load_state_dict({name: value[2] for name, value in named.items()})
    tokens = torch.randn(3, 4, 16)
    stacked = {name: value[2:3] for name, value in named.items()}
    torch.testing.assert_close(
        block(tokens), mamba_mixer(stacked, tokens[None])[0], rtol=1e-4, atol=1e-5
    )


def test_the_balance_loss_evens_the_load(rows):
    def variation(**recipe):
        losses = Losses()
        for seed in (0, 1):
            trained_mixture(*rows, seed, steps=150, journal=losses, **recipe)
        return np.mean([step["balance_loss"] for step in losses.steps[75:150] + losses.steps[225:]])

    assert variation() < 0.7 * variation(balance_weight=0.0)


def test_the_experts_own_loss_lets_none_starve(rows):
    """With one expert a row, each of eight would learn from an eighth of them."""

    def worst(**recipe):
        mixture = trained_mixture(*rows, steps=60, mixture={"n_experts": 8, "k": 1}, **recipe)
        with torch.no_grad():
            logits = mixture(rows[0]).expert_logits  # (E, n)
        target = rows[1].float().expand_as(logits)
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        return float(loss(logits, target, reduction="none").mean(1).max())

    assert worst() < 0.8 * worst(own_weight=0.0)


def test_training_leaves_every_parameter_memory_of_its_own(rows):
    """While it trains, parameters are views of one flat tensor, which no file shall carry along."""
    mixture = trained_mixture(*rows, steps=2, mixture={"n_experts": 2, "k": 1})
    for network in (trained_cvae(*rows, steps=2), mixture):
        parameters = list(network.parameters())
        assert len({p.untyped_storage().data_ptr() for p in parameters}) == len(parameters)
        assert all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in parameters)
        assert all(p.grad is None for p in parameters)


def test_experts_differ(rows):
    mixture = trained_mixture(*rows, steps=60)
    logits = mixture(rows[0]).expert_logits.detach()
    correlation = torch.corrcoef(logits)
    assert (correlation[~torch.eye(4, dtype=torch.bool)] < 0.999).all()


def test_an_expert_never_learns_from_its_left_out_fold(rows):
    """With folds, an expert's weights must not change with the rows of its own fold."""
    X, y = rows
    folds = torch.from_numpy(LeaveOut(X.numpy(), y.numpy(), 4, 0).folds)
    twisted = X.clone()
    twisted[folds == 1] *= -3.0
    quick = {"folds": folds, "steps": 5, "balance_weight": 0.0}
    one = trained_mixture(X, y, **quick)
    two = trained_mixture(twisted, y, **quick)
    first, second = one.experts.token_weight, two.experts.token_weight
    # The shared router sees all rows and the gradient is clipped as a whole, so equality is up to
    # those two couplings.
    assert (first[1] - second[1]).abs().max() < 0.1 * (first[0] - second[0]).abs().max()
    logits = out_of_fold(one, X, folds)
    assert torch.isfinite(logits).all()
    with pytest.raises(ValueError, match="at most"):
        out_of_fold(trained_mixture(X, y, steps=2, mixture={"n_experts": 2, "k": 1}), X, folds)


@pytest.mark.parametrize(("share", "n_generated"), [(0.001, 1), (0.2, 6), (0.99, 31), (1.0, 32)])
def test_known_and_generated_anomalies_are_both_in_a_batch(rows, share, n_generated):
    X, y = rows
    examples = Examples(X, y, X[:50])
    recipe = Recipe(steps=3, synthetic_share=share, mixup=0.0)
    plan = BatchPlan(examples, 1, recipe, torch.Generator(), np.random.default_rng(0))
    assert ((plan._rows >= len(X)).sum(1) == n_generated).all()


def test_normals_alone_teach_no_anomaly(rows):
    X, y = rows
    examples = Examples(X[y == 0], y[y == 0], X[:0])
    recipe = Recipe(steps=3, mixup=0.0)
    plan = BatchPlan(examples, 1, recipe, torch.Generator(), np.random.default_rng(0))
    assert not plan.target.any()


def test_a_trained_network_asks_for_no_kernels_that_may_be_missing_elsewhere(rows):
    X, y = rows
    for asked, kept in (("auto", "auto"), ("torch", "torch")):
        recipe = Recipe(steps=2, backend=asked)
        make = partial(MoEDetector, X.shape[1], n_experts=1, k=1)
        trained = train_detector(make, Examples(X, y, X[:0]), recipe, 0, "detector", Journal())
        assert trained.backend == kept


def test_training_is_deterministic_and_leaves_the_global_stream_alone(rows):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a = trained_mixture(*rows, 7, steps=10)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    b = trained_mixture(*rows, 7, steps=10)
    assert torch.equal(a.score(rows[0]), b.score(rows[0]))
    c = trained_mixture(*rows, 8, steps=10)
    assert not torch.equal(a.score(rows[0]), c.score(rows[0]))


def test_a_diverged_loss_names_stage_and_step(rows):
    X, y = rows
    with pytest.raises(FloatingPointError, match="detector: the loss is nan at step 0"):
        trained_mixture(X * torch.nan, y, steps=3, mixture={"n_experts": 1, "k": 1})


def test_n_experts_rule():
    """4 up to effective rank 16, 8 up to 64, 16 beyond; at most one per 64 rows, at least 4."""
    rng = np.random.default_rng(0)
    assert choose_n_experts(rng.normal(size=(4000, 8)))[0] == 4
    assert choose_n_experts(rng.normal(size=(4000, 40)))[0] == 8
    assert choose_n_experts(rng.normal(size=(4000, 200)))[0] == 16
    assert choose_n_experts(rng.normal(size=(300, 200)))[0] == 4
    copies = np.repeat(rng.normal(size=(4000, 2)), 50, axis=1)  # 100 columns, two directions
    n, rank = choose_n_experts(copies)
    assert (n, round(rank)) == (4, 2)
    assert choose_n_experts(np.zeros((50, 3)))[0] == 4


@pytest.mark.parametrize(
    "config",
    [
        {"d_model": 2000, "n_experts": 2000},
        {"n_experts": 2000, "d_head": 2000},
        {"d_model": 2000, "d_state": 2000},
        {"d_features": 2000, "n_tokens": 2000, "n_experts": 200},
        {"block": "mlp", "n_experts": 2000, "d_features": 2000},
        {"n_tokens": 2e-7},  # one token of so many columns that are none
    ],
)
def test_sizes_of_a_file_are_checked_before_memory_is_taken(config):
    packed = pack_network(MoEDetector(4, n_experts=3))
    assert 2000 < sum(value.numel() for value in packed["state"].values()) < 20_000
    packed["config"] |= config
    before = torch.get_rng_state()
    start = peak_memory_mib()
    with pytest.raises(ValueError, match="sizes of more numbers than are stored"):
        read_network(MoEDetector, packed)
    assert peak_memory_mib() < start + 50
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_is_read_without_a_word_to_the_random_stream():
    detector = MoEDetector(9, n_experts=16, block="mlp").eval()
    before = torch.get_rng_state()
    again = read_network(MoEDetector, pack_network(detector))
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.randn(20, 9)
    assert torch.equal(again.score(x), detector.score(x))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 201])
def test_the_cycle_is_torchs(steps):
    adamw = torch.optim.AdamW([torch.zeros(1)], lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adamw, max_lr=0.01, total_steps=steps)
    for lr, beta1 in one_cycle(0.01, steps):
        assert (lr, beta1) == (adamw.param_groups[0]["lr"], adamw.param_groups[0]["betas"][0])
        adamw.step()
        schedule.step()


@pytest.mark.parametrize("cut", [None, 3])
def test_adam_is_torchs(cut):
    """To the bit, also where a parameter has no gradient for some steps."""
    ours = [torch.randn(5, 8, requires_grad=True), torch.randn(8, requires_grad=True)]
    torchs = [p.detach().clone().requires_grad_() for p in ours]
    one, other = Adam(ours, 0.01), torch.optim.Adam(torchs, lr=0.01, fused=True)
    for step in range(6):
        if step == cut:
            saved, one = one.snapshot(), Adam(ours, 0.01)
            one.go_on(saved)
        for mine, its in zip(ours, torchs, strict=True):
            grad = None if step == 2 and mine is ours[0] else torch.randn_like(mine)
            mine.grad, its.grad = grad, grad
        one.step()
        other.step()
    assert all(torch.equal(mine, its) for mine, its in zip(ours, torchs, strict=True))


@pytest.mark.parametrize("cut", [None, 7])
def test_the_optimiser_is_adamw_with_a_one_cycle_rate_and_clipped_gradients(cut):
    steps, x = 20, torch.randn(64, 5, generator=torch.Generator().manual_seed(1))

    def network():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

    def loss(of):
        return (30 * (of(x).squeeze(1) - x[:, 0] * x[:, 1])).square().mean()

    torchs, ours = network(), network()
    kinds = ([], [])
    for name, p in torchs.named_parameters():
        kinds["bias" in name].append(p)
    adamw = torch.optim.AdamW(
        [
            {"params": ps, "weight_decay": decay}
            for ps, decay in zip(kinds, (0.1, 0.0), strict=True)
        ],
        lr=0.01,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(adamw, max_lr=0.01, total_steps=steps)
    optimiser = Optimiser(ours, 0.01, 0.1, steps, free=("bias",))
    for step in range(steps):
        if step == cut:
            saved = optimiser.snapshot()
            optimiser.release()
            optimiser = Optimiser(ours, 0.01, 0.1, steps, free=("bias",))
            optimiser.go_on(saved, step)
        adamw.zero_grad()
        loss(torchs).backward()
        torch.nn.utils.clip_grad_norm_(torchs.parameters(), Optimiser.CLIP)
        adamw.step()
        schedule.step()
        optimiser.step(loss(ours))
    for one, other in zip(torchs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# --- policy (M6) ----------------------------------------------------------------------------------


def test_log_prob_is_the_gaussian_density():
    torch.manual_seed(0)
    policy, state = GaussianPolicy(4, 3), torch.randn(6, 4)
    action = policy.act(state, torch.Generator().manual_seed(0))
    mean, std = policy.mean(policy.body(state)), policy.log_std.exp()
    expected = (-0.5 * ((action - mean) / std) ** 2 - std.log() - 0.5 * np.log(2 * np.pi)).sum(1)
    torch.testing.assert_close(policy.log_prob(state, action), expected)


@pytest.mark.parametrize("d", [2, 9, 60])
def test_mlp_experts_are_of_equal_size_and_learn(d):
    """The control arm of the Mamba experts is only fair with as many parameters."""
    mamba, mlp = (MoEDetector(d, 4, 2, block=block).experts for block in ("mamba", "mlp"))
    n_mamba, n_mlp = (sum(p.numel() for p in experts.parameters()) for experts in (mamba, mlp))
    assert abs(n_mlp / n_mamba - 1) < 0.02
    torch.manual_seed(0)
    X = torch.randn(400, d)
    y = (X[:, 0] > 1).long()
    mixture = trained_mixture(X, y, steps=80, mixture={"block": "mlp"})
    score = mixture.score(X)
    assert score[y == 1].mean() > score[y == 0].mean() + 1
    torch.testing.assert_close(score, mixture(X).logit, rtol=1e-4, atol=1e-5)
