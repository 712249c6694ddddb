"""Reward, feasible action, PPO, filter, selection, episodes: what the released code breaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import made_table, standardised

from swift_hydra.bench import proposal
from swift_hydra.generation import agent as agent_module
from swift_hydra.generation.agent import LatentAgent, gae, ppo_loss
from swift_hydra.generation.controls import GENERATORS, Proposer, SearchProposer
from swift_hydra.generation.environment import BOUND, LatentEnvironment
from swift_hydra.generation.reward import Candidates, Coverage, Feasibility, Novelty, Reward
from swift_hydra.geometry import effective_rank
from swift_hydra.journal import Journal
from swift_hydra.pretrain import PretrainSettings, pretrain
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import Episodes, SwiftHydra, generate, run_episodes


@pytest.fixture(scope="module")
def trained():
    Z, y = standardised(*made_table(n=300, n_anomalies=30))
    return Z, y, pretrain(Z, y, 0, PretrainSettings(cvae_steps=150, detector_steps=60))


@pytest.fixture
def environment(trained):
    Z, y, networks = trained
    return LatentEnvironment(Z, y, networks, np.random.default_rng(0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made(trained, kind, **settings):
    Z, y, networks = trained
    return generate(Z, y, networks, 0, SwiftHydra(generator=kind, **settings))


# --- reward (M4) ----------------------------------------------------------------------------------


def test_novelty_grows_with_the_distance_to_the_data():
    data = torch.randn(200, 4, generator=generator())
    novelty = Novelty(data)
    values = novelty(torch.tensor([[0.0] * 4, [2.0] * 4, [4.0] * 4]))
    assert (values.diff() > 0).all()
    assert ((values >= 0) & (values <= 1)).all()


def test_coverage_is_the_marginal_gain_of_the_log_determinant():
    x, data = torch.randn(12, 3, generator=generator()), torch.randn(20, 3, generator=generator(1))
    covered = Coverage(data)
    rows = torch.cat([x, data])
    K = covered.kernel(rows, rows).double() + Coverage.JITTER * torch.eye(32, dtype=torch.float64)
    for i in (0, 5):
        rest = [j for j in range(32) if j != i]
        gain = torch.logdet(K) - torch.logdet(K[rest][:, rest])
        torch.testing.assert_close(
            covered.leave_one_out(x)[i].double(), covered.scale(gain.exp()), rtol=1e-4, atol=1e-5
        )


def test_coverage_of_a_copy_is_low():
    x, covered = (
        torch.randn(10, 5, generator=generator()),
        Coverage(torch.randn(30, 5, generator=generator(1))),
    )
    alone = covered.leave_one_out(x)
    doubled = covered.leave_one_out(torch.cat([x, x[:1]]))
    assert max(doubled[0], doubled[10]) < 0.75 * alone[0]
    assert (doubled[1:10] <= alone[1:] + 1e-6).all()


def test_greedy_selection_takes_the_best_marginal_gain_each_time():
    x, data = torch.randn(15, 3, generator=generator()), torch.randn(6, 3, generator=generator(1))
    score, covered, weight = torch.rand(15, generator=generator(2)), Coverage(data), 0.7
    chosen = covered.select(x, score, 6, weight).tolist()
    assert len(set(chosen)) == 6
    for t, pick in enumerate(chosen):  # brute force: conditional variance by solving from scratch
        given = torch.cat([data, x[chosen[:t]]]).double()
        K = covered.kernel(given, given) + Coverage.JITTER * torch.eye(
            len(given), dtype=torch.float64
        )
        k = covered.kernel(given, x.double())
        variance = 1 + Coverage.JITTER - (k * torch.linalg.solve(K, k)).sum(0)
        gain = score + weight * covered.scale(variance)
        gain[chosen[:t]] = -torch.inf
        assert pick == int(gain.argmax())


def test_coverage_in_the_selection_widens_the_set():
    narrow, wide = (
        torch.randn(200, 6, generator=generator()) * 0.05,
        torch.randn(40, 6, generator=generator(1)) * 2,
    )
    x, score = torch.cat([narrow, wide]), torch.cat([torch.ones(200), torch.full((40,), 0.9)])
    covered = Coverage(torch.randn(30, 6, generator=generator(2)))
    without, with_it = (x[covered.select(x, score, 30, weight)] for weight in (0.0, 2.0))
    assert with_it.std(0).mean() > 3 * without.std(0).mean()


def test_the_filter_rejects_what_lies_among_normals():
    normals = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    feasible = Feasibility(normals)
    assert feasible(torch.from_numpy(normals + 1e-3)).mean() < 0.2
    assert feasible(torch.full((5, 4), 6.0)).all()


# --- environment and feasible action (M4, M5) -----------------------------------------------------


def test_a_step_moves_the_latent_by_a_bounded_amount(environment):
    at = environment.reset(50, 1.0, generator())
    after = environment.step(at, torch.full((50, environment.d_action), 100.0))
    torch.testing.assert_close(after.z - at.z, torch.ones_like(at.z))
    assert (at.t, after.t) == (0, 1)


def test_no_action_leaves_only_the_random_direction(environment):
    at = environment.reset(50, 1.0, generator())
    x = environment.decode(at)
    distance = (x - at.base).norm(dim=1)
    wanted = at.log_tau.exp() * at.scale
    inside = x.abs().amax(1) < BOUND  # not cut
    torch.testing.assert_close(distance[inside], wanted[inside], rtol=1e-3, atol=1e-4)


def test_the_gradient_action_moves_z_and_raises_the_reward(environment):
    """The released code detaches z, so that its 'one step to feasible actions' never moves it."""

    def reward(at):
        x = environment.decode(at)
        return environment.reward.smooth(x, environment.detector, at.weight).detach()

    start = at = environment.reset(200, 1.0, generator())
    for _ in range(environment.n_steps):
        at = environment.step(at, environment.gradient_action(at))
    moved = (at.z - start.z).norm(dim=1) > 0.1
    assert moved.float().mean() > 0.9  # where the reward is saturated there is no slope to follow
    assert reward(at).mean() > reward(start).mean() + 0.05


def test_the_reward_is_the_sum_of_its_parts(environment):
    at = environment.reset(64, 0.6, generator())
    with torch.no_grad():
        x = environment.decode(replace(at, log_tau=at.log_tau + 1.0))
    r = environment.judge(x, 0.6)
    half = environment.reward.half(0.6)
    assert half == r.coverage_weight == pytest.approx(0.6 * 4.0 / 2)
    outside = 2.0 * (~r.feasible).float()
    torch.testing.assert_close(
        r.total, half * r.novelty + half * r.coverage + r.deception - outside
    )
    torch.testing.assert_close(r.without_coverage, r.total - half * r.coverage)


@pytest.mark.parametrize("term", ["coverage", "deception", "penalty"])
def test_an_ablation_takes_its_term_out(environment, term):
    at = environment.reset(64, 0.6, generator())
    with torch.no_grad():
        x = environment.decode(replace(at, log_tau=at.log_tau + 1.0))
    x = torch.cat([x, environment.X[:64]])  # among normals the filter lets nothing pass
    whole = environment.judge(x, 0.6)
    gone = {
        "coverage": environment.reward.half(0.6) * whole.coverage,
        "deception": whole.deception,
        "penalty": -2.0 * (~whole.feasible).float(),
    }[term]
    name, value = {
        "coverage": ("use_coverage", False),
        "deception": ("use_deception", False),
        "penalty": ("penalty", 0.0),
    }[term]
    setattr(environment.reward, name, value)
    torch.testing.assert_close(environment.judge(x, 0.6).total, whole.total - gone)
    assert gone.abs().max() > 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rollouts_start_at_known_anomalies_as_often_as_stated(trained, share):
    Z, y, networks = trained
    environment = LatentEnvironment(Z, y, networks, np.random.default_rng(0), anomaly_share=share)
    start = environment.reset(64, 0.6, generator())
    at_known = (start.base[:, None] == Z[y == 1]).all(2).any(1)
    assert at_known.float().mean() == share


def test_as_many_rows_are_made_as_balance_the_classes_within_bounds(trained):
    Z, y, _ = trained
    assert len(made(trained, "oversample").rows) == 400  # the fewest
    many = torch.cat([Z] * 20), torch.cat([y] * 20)
    settings = SwiftHydra(generator="oversample")
    assert len(generate(*many, None, 0, settings).rows) == 1000  # the most


# --- PPO (M6) -------------------------------------------------------------------------------------


def test_ppo_loss_by_hand():
    zero, one = torch.zeros(1), torch.ones(1)

    def policy_part(log_ratio, advantage):
        value = ppo_loss(zero + log_ratio, zero, one * advantage, zero, zero, zero).policy
        return round(float(value), 4)

    assert policy_part(0.0, 2.0) == -2.0  # ratio 1
    assert policy_part(np.log(1.5), 2.0) == -2.4  # gain clipped at 1.2
    assert policy_part(np.log(0.5), 2.0) == -1.0  # loss of a good action is not clipped
    assert policy_part(np.log(0.5), -2.0) == 1.6  # gain clipped at .8
    assert policy_part(np.log(1.5), -2.0) == 3.0  # loss of a bad action is not clipped
    whole = ppo_loss(zero, zero, one, one * 3, one, one * 2)
    assert float(whole.total) == pytest.approx(-1.0 + 0.5 * 2.0 - 0.01 * 2.0)


def test_gae_by_hand():
    rewards, values = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [1.5], [0.0]])
    one_step = gae(rewards, values, discount=0.9, decay=0.0)
    torch.testing.assert_close(one_step, torch.tensor([[1 + 0.9 * 1.5 - 0.5], [2 - 1.5]]))
    to_the_end = gae(rewards, values, discount=1.0, decay=1.0)
    torch.testing.assert_close(to_the_end, torch.tensor([[1 + 2 - 0.5], [2 - 1.5]]))


def test_ppo_learns_and_moves_policy_and_value(environment):
    """With the environment held still, the mean reward of the policy's own rollouts rises."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        agent = LatentAgent(environment)
    nets = {
        **dict(agent.policy.named_parameters()),
        **{f"v.{n}": p for n, p in agent.value.named_parameters()},
    }
    before, g, rewards = {n: p.detach().clone() for n, p in nets.items()}, generator(), []
    for _ in range(15):
        _, _, reward, batch = agent.play(environment, 512, 1.0, 0.0, g)
        rewards.append(float(reward.total.mean()))
        agent.update(batch, g)
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.1
    assert not [n for n, p in nets.items() if torch.equal(before[n], p.detach())]


def test_advantages_are_normalised_over_the_policys_own_actions(environment, monkeypatch):
    """However large rewards are, and whatever gradient actions are worth."""
    seen = []

    def spy(log_prob, old_log_prob, advantage, *rest):
        seen.append(advantage)
        return ppo_loss(log_prob, old_log_prob, advantage, *rest)

    monkeypatch.setattr(agent_module, "ppo_loss", spy)
    agent = LatentAgent(environment, epochs=1)
    batch = agent.play(environment, 256, 1.0, 0.4, generator())[3]
    assert 0 < batch.guided.sum() < len(batch.guided)
    large = batch._replace(advantage=1000 * batch.advantage + 70)
    of = []
    for each in (batch, large):
        seen.clear()
        agent.update(each, generator())
        of.append(torch.cat(seen))
        assert len(of[-1]) == (~batch.guided).sum()
        assert abs(float(of[-1].mean())) < 1e-4 and float(of[-1].std()) == pytest.approx(
            1, abs=1e-3
        )
    torch.testing.assert_close(*of, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("gain", [1.0, -1.0])
def test_gradient_actions_that_beat_expectation_are_imitated(environment, gain):
    agent = LatentAgent(environment)
    batch = agent.play(environment, 256, 1.0, 1.0, generator())[3]
    batch = batch._replace(advantage=torch.full_like(batch.advantage, gain))
    assert batch.guided.all()

    def distance():
        mean = agent.policy.distribution(batch.state).mean.detach()
        return (torch.tanh(mean) - torch.tanh(batch.action)).square().mean().item()

    before = distance()
    for _ in range(10):
        agent.update(batch, generator())
    assert distance() < 0.9 * before if gain > 0 else distance() == before


# --- episodes (M8) --------------------------------------------------------------------------------


class Watched(SearchProposer):
    """Random search that notes the networks each of its episodes has to fool."""

    def __init__(self, environment):
        super().__init__(environment)
        self.networks = []

    def propose(self, count, weight, generator):
        self.networks.append((self.environment.cvae, self.environment.detector))
        return super().propose(count, weight, generator)


def test_between_episodes_the_networks_learn_the_accepted_rows(trained, environment):
    _, y, networks = trained
    proposer = Watched(environment)
    episodes = Episodes(y, 160, 2, 0, "search")
    rows, log = run_episodes(episodes, environment, proposer, generator(), Journal())
    assert [entry["accepted"] for entry in log] == [80, 160]
    (cvae, detector), (new_cvae, new_detector) = proposer.networks
    assert cvae is networks.cvae and detector is networks.detector
    accepted, ones = rows[:80], torch.ones(80)
    fooled = (-detector.score(accepted)).mean(), (-new_detector.score(accepted)).mean()
    assert fooled[1] < fooled[0] - 0.5
    with torch.no_grad():
        errors = [net.loss(accepted, ones, generator()).reconstruction for net in (cvae, new_cvae)]
    assert errors[1] < 0.8 * errors[0]


def test_a_second_selection_keeps_away_from_accepted_rows(trained, environment):
    """Though what it proposes again has the larger reward."""
    Z, y, _ = trained
    x = 4.5 * torch.cat([torch.eye(Z.shape[1]), -torch.eye(Z.shape[1])])
    alike = x[: len(x) // 2] + 1e-3
    zero = torch.zeros(len(x) + len(alike))
    score = torch.cat([zero[: len(x)], zero[: len(alike)] + 0.5])
    score[: len(alike)] = 0.6
    reward = Reward(score, score, zero, zero, zero, zero == 0, 2.0)

    class Same(Proposer):
        def propose(self, count, weight, generator):
            return Candidates(torch.cat([x, alike]), reward, zero[:, None], {})

    episodes = Episodes(y, len(x), 2, 0, "search")
    rows, _ = run_episodes(episodes, environment, Same(environment), generator(), Journal())
    assert len(rows) == len(x)
    apart = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    assert apart.min() > 1


def test_the_share_of_gradient_actions_falls(trained, monkeypatch):
    shares, play = [], LatentAgent.play

    def spy(agent, environment, count, weight, gradient_share, generator):
        shares.append(gradient_share)
        return play(agent, environment, count // 8, weight, gradient_share, generator)

    monkeypatch.setattr(LatentAgent, "play", spy)
    made(trained, "rl", n_synthetic=30, n_episodes=3)
    assert shares == pytest.approx([0.5, 0.3, 0.18])
    shares.clear()
    made(trained, "rl", n_synthetic=10, n_episodes=1, policy_settings={"warm_up": False})
    assert shares == [0]


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_deliver_feasible_finite_rows(trained, kind):
    if kind == "smote":
        pytest.importorskip("imblearn", reason="generator 'smote' needs imbalanced-learn")
    Z, y, _ = trained
    rows = made(trained, kind, n_synthetic=120, n_episodes=3).rows
    if kind == "none":
        assert len(rows) == 0
        return
    assert 0 < len(rows) <= 120
    assert torch.isfinite(rows).all()
    assert rows.abs().max() <= 5.0
    known = Z[y == 1]
    if kind == "oversample":
        assert (rows[:, None] == known).all(2).any(1).all()
    elif kind == "smote":  # on a segment between two known anomalies: inside their box
        assert (rows >= known.amin(0) - 1e-5).all()
        assert (rows <= known.amax(0) + 1e-5).all()
        assert (torch.cdist(rows, known).amin(1) > 1e-3).float().mean() > 0.9
    else:
        assert Feasibility(Z[y == 0].numpy())(rows).all()
        assert len(torch.unique(rows, dim=0)) == len(rows)
    assert torch.equal(rows, made(trained, kind, n_synthetic=120, n_episodes=3).rows)


def test_rl_moves_the_latent_and_logs_its_losses(trained):
    rows, log = made(trained, "rl", n_synthetic=150, n_episodes=3)
    assert len(rows) == 150
    assert [entry["episode"] for entry in log] == [0, 1, 2]
    for entry in log:
        assert entry["latent_step"] > 0.05
        assert {"policy_loss", "value_loss", "policy_entropy", "approx_kl"} <= set(entry)
        assert all(np.isfinite(value) for value in entry.values())
    weights = [entry["diversity_weight"] for entry in log]
    assert weights == pytest.approx([1, 0.6, 0.36])  # diversity first, deception later


def test_coverage_keeps_the_policys_set_wide(trained):
    """Against the gradient on z, whose set of decoder means spans few directions (M4)."""
    ranks = {
        kind: effective_rank(made(trained, kind, n_synthetic=150).rows)
        for kind in ("rl", "gradient")
    }
    assert ranks["rl"] > ranks["gradient"]


def test_the_pretrained_networks_stay_as_they_are(trained):
    Z, _, networks = trained
    before = networks.cvae.residual(Z), networks.detector.score(Z)
    made(trained, "rl", n_synthetic=50, n_episodes=2)
    assert torch.equal(before[0], networks.cvae.residual(Z))
    assert torch.equal(before[1], networks.detector.score(Z))


def test_unknown_generator_is_refused(trained):
    with pytest.raises(InputError, match="generator='magic' is unknown"):
        made(trained, "magic")


def test_a_proposal_is_learned_from_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(proposal, "POPULATION", 3)
    monkeypatch.setattr(proposal, "ELITE", 1)
    monkeypatch.setattr(proposal, "GENERATIONS", 2)
    monkeypatch.setattr(proposal, "STEPS", 10)
    X, y = made_table(n=150, n_anomalies=30)
    np.savez(tmp_path / "t.npz", X=X, y=y)
    case = proposal.case_of(tmp_path / "t.npz", 20)
    paid = [proposal.payment(theta, case) for theta in (np.zeros(8), np.zeros(8), np.full(8, 2.0))]
    assert paid[0] == paid[1] and 0 <= min(paid) and max(paid) <= 1
    theta, log = proposal.learn([case])
    assert theta.shape == (8,) and np.isfinite(theta).all() and len(log) == 2
