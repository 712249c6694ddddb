"""Swift Hydra: generate anomalies with a latent policy, train a mixture of Mamba experts on them,
report AUC-ROC.

    python SwiftHydra.py                       # the embedded UCI Yeast set
    python SwiftHydra.py yeast --protocol unseen --seed 1
    python SwiftHydra.py path/to/table.csv --label-column outlier
    python SwiftHydra.py path/to/table.csv --resume    # goes on where the same command was cut off
    python SwiftHydra.py yeast --eval-only results/47_yeast/seen/seed0/checkpoint.pt
    python SwiftHydra.py score --checkpoint results/table/seen/seed0/checkpoint.pt --data new.csv    # see scoring.py

Uses what pretrain.py saved for the same rows and settings, and pretrains first when nothing is
there. Writes ``results/<dataset>/<protocol>/seed<k>/`` and prints ``AUC-ROC 0.xxxx  AUC-PR 0.xxxx``
last. The class below is the same method for your own code, with scikit-learn's conventions.
"""

import importlib
import math
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.utils import ClassifierTags

from swift_hydra.data.columns import Preparation, Standardizer
from swift_hydra.data.labels import check_labels, encode_labels
from swift_hydra.data.table import as_table, fingerprint
from swift_hydra.dataloader import load_rows
from swift_hydra.detection.full import FullDetector
from swift_hydra.detection.mixture import DetectorSettings, MixtureDetector
from swift_hydra.files import content_of, load_checkpoint, write_torch
from swift_hydra.generation.agent import LatentAgent
from swift_hydra.generation.controls import (
    GENERATORS,
    N_CANDIDATES,
    Generated,
    copied,
    draw_filtered,
    gradient_candidates,
    random_rollout,
)
from swift_hydra.generation.environment import LatentEnvironment
from swift_hydra.generation.reward import Coverage
from swift_hydra.geometry import effective_rank
from swift_hydra.journal import NO_STORE, Clock, Progress, silent
from swift_hydra.model import BetaCVAE, MoEDetector, choose_n_experts
from swift_hydra.pretrain import (
    PretrainConfig,
    check_pretrain_settings,
    pretrain,
    reuse_or_pretrain,
    train_cvae,
    train_detector,
)
from swift_hydra.run import score_file
from swift_hydra.run.figures import Run, draw_run, require_matplotlib
from swift_hydra.run.folder import RunFolder
from swift_hydra.run.record import environment_report, peak_memory_mib, write_tensorboard
from swift_hydra.run.resume import Store, finished_run
from swift_hydra.scan.backends import choose_backend
from swift_hydra.settings import (
    InputError,
    check_choice,
    check_range,
    parse_config,
    resolve_device,
    run_main,
    setting,
)
from swift_hydra.snapshot import pack_network, to_arrays, to_tensors, unpack_network
from swift_hydra.training.seeds import seeded, stage_seed

if (
    __name__ == "SwiftHydra"
):  # the clone's short name: one class, and one name in pickles, whichever came first
    sys.modules[__name__] = importlib.import_module("swift_hydra.SwiftHydra")

DATASET = "47_yeast"  # edit here, or give a path or an ADBench name on the command line
PRESETS = {"full": FullDetector, "paper": MixtureDetector}
MIN_NORMALS = 5  # fewer cannot be split into folds that say what normal looks like
CHUNK = (
    2**22
)  # numbers scored at a time (65536 rows at most): memory for one chunk, whatever the table's length


class NotFitted(InputError, NotFittedError):
    """scikit-learn's error for an estimator without a fit, printed like the others on the command
    line.
    """


class SwiftHydra(BaseEstimator):
    """Anomaly detector for tables with some known anomalies (semi-supervised: y marks them).

    Higher scores are more anomalous; labels are 0 (normal, or unknown) and 1 (known anomaly).

    Args:
        random_state: seed of every stage; the same seed gives the same scores to the bit on a CPU.
        preset: "paper" is M1-M9 alone; "full" adds evidence (M10), kernel experts (M11) and the
            one-class OR (M12).
        generator: where generated anomalies come from: "rl" | "gradient" | "cvae" | "noise" |
            "none", or one of the benchmark's controls (see episodes.py).
        n_experts: experts of the mixture, or "auto" (see :func:`training.choose_n_experts`).
        k: experts that run for one row.
        n_episodes: episodes of the policy (M8).
        n_synthetic: generated rows, None balances the classes (400 to 1000).
        synthetic_share: share of generated rows in the anomaly half of a training batch.
        unlike_weight: w of M12, the prior share of anomalies unlike the known ones.
        contamination: share of the training rows that ``predict`` would flag; only sets
            ``threshold_``.
        impute, categorical: what happens to missing values and text columns, see
            :class:`preparation.Preparation`.
        cvae_steps, detector_steps, beta: as in pretrain.py.
        mixture_steps: training steps of the final mixture.
        device: "auto", "cpu", "cuda", "cuda:1": where the final mixture runs. The small networks of
            the episodes and the neighbours stay on the CPU.
        mamba: "auto", "torch", "numba" or "official", see :func:`model.choose_backend`.
        policy_settings: a dict of arguments of :class:`policy.LatentEnvironment`, and ``warm_up``,
            for ablations.
        mixture_settings: a dict of arguments of :class:`model.MoEDetector`'s experts, for
            ablations.
        progress: a callable ``(stage, step, n_steps, **losses)``, or None.

    Attributes after ``fit``:
        synthetic_: (n, d) generated anomalies in the input's units, columns as prepared.
        episode_log_: one dict per episode.
        preparation_: what was learned about gaps and texts.
        decision_scores_: (n,) scores of the training rows, with "full" by models that did not see
            the row.
        threshold_, labels_: of ``contamination``.
        n_experts_, effective_rank_: of the rule for "auto".
        seconds_: seconds per stage.

    Raises:
        config.InputError: (a ValueError) from ``fit`` and scoring for NaN (with the column's name),
        infinity, text,
            wrong shapes, one class only, unknown option values.
    """

    def __init__(
        self,
        random_state=0,
        preset="full",
        generator="rl",
        n_experts="auto",
        k=2,
        n_episodes=5,
        n_synthetic=None,
        synthetic_share=0.2,
        unlike_weight=0.3,
        contamination=0.1,
        impute="refuse",
        categorical="refuse",
        cvae_steps=200,
        detector_steps=100,
        mixture_steps=300,
        beta=0.2,
        device="auto",
        mamba="auto",
        policy_settings=None,
        mixture_settings=None,
        progress=None,
    ):
        self.random_state = random_state
        self.preset = preset
        self.generator = generator
        self.n_experts = n_experts
        self.k = k
        self.n_episodes = n_episodes
        self.n_synthetic = n_synthetic
        self.synthetic_share = synthetic_share
        self.unlike_weight = unlike_weight
        self.contamination = contamination
        self.impute = impute
        self.categorical = categorical
        self.cvae_steps = cvae_steps
        self.detector_steps = detector_steps
        self.mixture_steps = mixture_steps
        self.beta = beta
        self.device = device
        self.mamba = mamba
        self.policy_settings = policy_settings
        self.mixture_settings = mixture_settings
        self.progress = progress

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.classifier_tags = ClassifierTags(
            multi_class=False
        )  # two labels; otherwise no classifier: scores matter
        return tags

    # --- training ---------------------------------------------------------------------------------

    def fit(self, X=None, y=None, pretrained=None, X_train=None, y_train=None, store=NO_STORE):
        """Train on X (n, d), an array, data frame or Table, with y (n,).

        ``pretrained`` (from pretrain.py) must stem from the same rows and seed.

        ``X_train`` and ``y_train`` are ADBench's names for the same arguments. ``store`` keeps
        finished stages, so that a fit that was cut off can go on (see resume.py).
        """
        X, y = (X_train, y_train) if X is None else (X, y)
        self.check_settings()
        if y is None:
            raise InputError(
                "SwiftHydra requires y to be passed, but the target y is None: give 1 for known anomalies"
            )
        table = as_table(X, self.categorical != "refuse" or ())
        preparation = Preparation(self.impute, self.categorical).fit(table)
        X = preparation.transform(table)
        if len(X) < 2:
            raise InputError(
                f"X has n_samples = {len(X)}: give at least {MIN_NORMALS} normal rows and an anomaly"
            )
        y, classes = encode_labels(y)
        y = check_labels(y, least=1)
        if len(X) != len(y):
            raise InputError(f"X has {len(X)} rows and y has {len(y)}: give one label per row")
        if (y == 0).sum() < MIN_NORMALS:
            raise InputError(
                f"y marks only {int((y == 0).sum())} rows as normal (0): at least {MIN_NORMALS} are needed"
            )
        self.preparation_, self.n_features_in_, self.classes_ = (
            preparation,
            table.X.shape[1],
            classes,
        )
        self.centre_, self.range_ = preparation.centre(X[y == 0]), np.stack([X.min(0), X.max(0)])
        self.device_, self.seconds_ = resolve_device(self.device), {}
        seed, progress = int(self.random_state), self.progress or silent

        with Clock(self.seconds_, "pretrain"):
            self.scaler_ = Standardizer().fit(X)
            Z, labels = torch.from_numpy(self.scaler_.transform(X)), torch.from_numpy(y)
            if pretrained is None:
                pretrained = pretrain(
                    Z,
                    labels,
                    seed,
                    self.cvae_steps,
                    self.detector_steps,
                    self.beta,
                    progress,
                    store,
                    self.device_,
                )
        with Clock(self.seconds_, "episodes"):
            generated = generate_anomalies(
                Z,
                labels,
                pretrained.cvae,
                pretrained.detector,
                seed,
                self.generator,
                self.n_synthetic,
                self.n_episodes,
                progress,
                store,
                **(self.policy_settings or {}),
            )
        self.synthetic_ = self.scaler_.inverse_transform(generated.rows.numpy())
        self.episode_log_ = generated.log
        wanted, self.effective_rank_ = choose_n_experts(Z.numpy())
        self.n_experts_ = wanted if self.n_experts == "auto" else int(self.n_experts)
        self.detector_ = self._new_detector().fit(
            Z, labels, generated.rows, progress, self.seconds_, store
        )
        self.decision_scores_ = self.detector_.training_scores_
        self.set_contamination(self.contamination)
        return self

    def check_settings(self):
        """Refuse unknown option values before any work. Raises :class:`config.InputError`."""
        check_choice("preset", self.preset, PRESETS)
        check_choice("generator", self.generator, GENERATORS)
        for name in ("n_episodes", "mixture_steps", "k"):
            check_range(name, getattr(self, name), 1, 10**6)
        check_range("random_state", self.random_state, 0, 2**32 - 1)
        check_pretrain_settings(self.cvae_steps, self.detector_steps, self.beta)
        if self.n_synthetic is not None:
            check_range("n_synthetic", self.n_synthetic, 1, 10**6)
        for name in ("synthetic_share", "unlike_weight", "contamination"):
            check_range(name, getattr(self, name), 0, 0.99, whole=False)
        if self.n_experts != "auto" and (
            not str(self.n_experts).isdigit() or int(self.n_experts) < 1
        ):
            raise InputError(
                f"n_experts={self.n_experts!r} is not usable: give 'auto' or an integer from 1"
            )
        try:
            choose_backend(self.mamba)
        except RuntimeError as error:
            raise InputError(str(error)) from None

    def _new_detector(self):
        settings = DetectorSettings(
            seed=int(self.random_state),
            n_experts=self.n_experts_,
            k=self.k,
            steps=self.mixture_steps,
            synthetic_share=self.synthetic_share,
            unlike_weight=self.unlike_weight,
            cvae_steps=self.cvae_steps,
            beta=self.beta,
            device=self.device_,
            backend=self.mamba,
            mixture=self.mixture_settings or {},
        )
        return PRESETS[self.preset](settings)

    # --- scoring ----------------------------------------------------------------------------------

    def decision_function(self, X):
        """Scores (n,) of rows X (n, d); higher is more anomalous. Streams: memory is that of one
        chunk of rows.
        """
        return np.concatenate(
            [self.score_prepared(rows) for rows in self._prepared(self._table(X))]
        )

    def chunk_rows(self):
        """Rows that are scored at a time: fewer of a wide table, so that memory is the same."""
        return min(65536, CHUNK // self.n_features_in_ + 1)

    def _prepared(self, table):
        """The prepared rows of a table, chunk by chunk; an empty table is refused by its first
        chunk.
        """
        chunk = self.chunk_rows()
        for start in range(0, max(len(table), 1), chunk):
            yield self.preparation_.transform(table.take(slice(start, start + chunk)))

    def _table(self, X):
        """X as a table of the training's columns."""
        if not hasattr(self, "detector_"):
            raise NotFitted(
                "this SwiftHydra is not fitted yet: call fit(X, y) or SwiftHydra.load(path) first"
            )
        table = as_table(X, self.preparation_.texts)
        if table.X.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {table.X.shape[1]} features, but SwiftHydra is expecting {self.n_features_in_} features as "
                "input: give the columns it was trained on"
            )
        return replace(table, columns=table.columns or self.preparation_.columns)

    def score_prepared(self, X):
        """(n,) scores of rows (n, d') that ``preparation_`` has prepared, all at once."""
        scores = self.detector_.score(self.scaler_.transform(X))
        if not np.isfinite(scores).all():
            raise FloatingPointError(
                f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite"
            )
        return scores

    def explain(self, X, k=3):
        """The features that raise the score of each row most, by occlusion.

        A feature's share is how much the score falls when its value is replaced by the training
        normals' median (most frequent text) and the other features stay. Costs d further scorings
        of X.

        Args:
            X: (n, d) rows.
            k: features to name, at most d.

        Returns:
            Names (n, k), the largest share first, and the shares (n, k) in units of the score.
        """
        table = self._table(X)
        k, first, shares = min(k, self.n_features_in_), [], []
        for X in self._prepared(table):
            score, raised = self.score_prepared(X), np.empty((len(X), self.n_features_in_))
            for j in range(self.n_features_in_):
                raised[:, j] = score - self.score_prepared(
                    np.where(self.preparation_.groups == j, self.centre_, X)
                )
            order = np.argsort(-raised, axis=1, kind="stable")[:, :k]
            first.append(order)
            shares.append(np.take_along_axis(raised, order, axis=1))
        return np.array(self.feature_names(), dtype=object)[np.concatenate(first)], np.concatenate(
            shares
        )

    def feature_names(self):
        """Names of the d columns: those of the training table, or x0, x1, ..."""
        return list(self.preparation_.columns or (f"x{j}" for j in range(self.n_features_in_)))

    def predict_score(self, X):
        """ADBench's name for :meth:`decision_function`."""
        return self.decision_function(X)

    def predict_proba(self, X):
        """(n, 2): probability of normal and anomaly if both were equally frequent."""
        anomaly = torch.sigmoid(torch.from_numpy(self.decision_function(X))).numpy()
        return np.column_stack([1 - anomaly, anomaly])

    def predict(self, X):
        """(n,) labels of ``classes_``: the second, 1, for scores above ``threshold_``."""
        above = self.decision_function(X) > self.threshold_
        return self.classes_[above.astype(np.int64)]

    def set_contamination(self, contamination):
        """Move ``threshold_`` and ``labels_`` without a refit. contamination: share of training
        rows above it.
        """
        check_range("contamination", contamination, 0, 0.99, whole=False)
        self.contamination = contamination
        self.threshold_ = float(np.quantile(self.decision_scores_, 1 - contamination))
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(np.int64)
        return self

    # --- checkpoints ------------------------------------------------------------------------------

    def checkpoint(self, data_fingerprint=None):
        """The fitted detector as tensors and plain values."""
        parameters = {
            name: value.item()
            if isinstance(value, np.generic)
            else value  # a numpy seed is no plain value
            for name, value in self.get_params().items()
            if name != "progress"
        }
        return {
            "kind": "SwiftHydra",
            "fingerprint": data_fingerprint,
            "parameters": parameters,
            "preparation": to_tensors(self.preparation_.state()),
            "classes": self.classes_.tolist(),
            "n_features": self.n_features_in_,
            "n_experts": self.n_experts_,
            "effective_rank": self.effective_rank_,
            "centre": torch.from_numpy(self.centre_),
            "range": torch.from_numpy(self.range_),
            "scaler": to_tensors(self.scaler_.state()),
            "synthetic": torch.from_numpy(self.synthetic_),
            "detector": to_tensors(self.detector_.state()),
            "decision_scores": torch.from_numpy(self.decision_scores_),
        }

    def save(self, path):
        """Write the fitted detector to one file, atomically."""
        write_torch(path, self.checkpoint())

    @classmethod
    def load(cls, path):
        """Read a detector that :meth:`save` or a run wrote; it scores on the CPU, bit-equal to the
        saved one there.

        Raises:
            InputError: if the file is missing, damaged or of another kind.
        """
        return cls._from_checkpoint(load_checkpoint(path, "SwiftHydra"), path)

    @classmethod
    def _from_checkpoint(cls, saved, path):
        with content_of(path):
            return cls._rebuild(saved)._check_rebuilt()

    @classmethod
    def _rebuild(cls, saved):
        self = cls(**saved["parameters"])
        self.device_, self.preparation_ = (
            torch.device("cpu"),
            Preparation.from_state(to_arrays(saved["preparation"])),
        )
        self.n_features_in_, self.classes_ = saved["n_features"], np.array(saved["classes"])
        self.n_experts_, self.effective_rank_ = saved["n_experts"], saved["effective_rank"]
        self.centre_, self.range_ = saved["centre"].numpy(), saved["range"].numpy()
        self.scaler_ = Standardizer.from_state(to_arrays(saved["scaler"]))
        self.synthetic_, self.decision_scores_ = (
            saved["synthetic"].numpy(),
            saved["decision_scores"].numpy(),
        )
        self.detector_ = self._new_detector().load_state(to_arrays(saved["detector"]))
        return self.set_contamination(self.contamination)

    def _check_rebuilt(self):
        """Shapes and values of what was read, then a few rows are scored: what does not fit shows
        now, not later.
        """
        self.preparation_.check(self.n_features_in_)
        d, rows, scores = len(self.preparation_.names), self.synthetic_, self.decision_scores_
        wanted = {
            "centre": (self.centre_, (d,)),
            "range": (self.range_, (2, d)),
            "classes": (self.classes_, (2,)),
            "synthetic": (rows, (*rows.shape[:1], d)),
            "decision_scores": (scores, scores.shape[:1]),
        }
        for name, (value, shape) in wanted.items():
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name} is not finite or its shape is {value.shape}, not {shape}")
        self.score_prepared(np.concatenate([self.centre_[None], self.range_, rows[:32]]))
        return self


SHOWN = (
    "reward",
    "novelty",
    "coverage",
    "deception",
    "feasible",
    "effective_rank",
)  # of an episode, while it runs
GAMMA = 0.6  # reward weight of diversity in episode e is GAMMA ** e
LOSS_ROWS = 4096  # most normals of the logged detector loss


def generate_anomalies(
    X,
    y,
    cvae,
    detector,
    seed,
    kind="rl",
    n_synthetic=None,
    n_episodes=5,
    progress=silent,
    store=NO_STORE,
    warm_up=True,
    **environment_settings,
):
    """Generate anomalies from standardised training rows (M4-M8).

    Args:
        X: (n, d) float32 tensor.
        y: (n,) int64.
        cvae, detector: pretrained; refreshed copies are used, these stay.
        kind: one of ``GENERATORS``.
        n_synthetic: rows wanted; None takes what balances the classes, between 400 and 1000 (fewer
            than 400 leave the detector to memorise them, more changed nothing that was measured).
        store: where finished episodes go to, and where they are taken from; the other rungs take no
            time worth it.
        n_episodes: episodes of "rl", "search" and "gradient"; the other rungs learn nothing from
            one and use one.
        warm_up: give early rollouts of "rl" gradient actions (M5).
        environment_settings: see ``LatentEnvironment``.

    Returns:
        A :class:`Generated`. Fewer rows than wanted when too few candidates pass the filter; the
        log says how many.

    Raises:
        ValueError: for an unknown ``kind``.
    """
    if kind not in GENERATORS:
        raise ValueError(f"generator must be one of {', '.join(GENERATORS)}, however: {kind!r}")
    if kind == "none":
        return Generated(X[:0], [])
    saved = store.get("episodes")
    if saved is not None and saved["finished"]:
        return Generated(saved["accepted"], saved["log"])
    n_anomalies = int((y == 1).sum())
    wanted = n_synthetic or int(np.clip(len(y) - 2 * n_anomalies, 400, 1000))
    rng = np.random.default_rng(stage_seed(seed, f"generate/{kind}"))
    with seeded(seed, f"generate/{kind}") as generator:
        if kind in ("smote", "oversample"):
            return copied(X, y, kind, wanted, seed, generator)
        environment = LatentEnvironment(X, y, cvae, detector, rng, **environment_settings)
        if kind in ("noise", "cvae", "uniform"):
            return draw_filtered(environment, kind, wanted, generator)
        agent = LatentAgent(environment) if kind == "rl" else None
        accepted, log = X[:0], []
        if saved is not None:
            accepted, log = saved["accepted"], saved["log"]
            _load_state(saved, environment, agent, generator)
        for episode in range(len(log), n_episodes):
            weight = GAMMA**episode
            detector_loss = _detector_loss(environment.detector, X, y, accepted)
            if kind == "rl":
                x, reward, batch = agent.rollout(
                    environment, N_CANDIDATES, weight, weight / 2 * warm_up, generator
                )
                loss = agent.update(batch, generator)
            elif kind == "search":
                x, reward, loss = (
                    *random_rollout(environment, N_CANDIDATES, weight, generator),
                    None,
                )
            else:
                x, reward, loss = *gradient_candidates(environment, weight, generator), None
            moved = (environment.z - environment.start).norm(dim=1).mean()
            share = math.ceil((wanted - len(accepted)) / (n_episodes - episode))
            open_ = reward.feasible.nonzero().squeeze(1)
            score = (
                reward.total[open_] - environment.diversity * weight * 0.5 * reward.coverage[open_]
            )
            use_coverage = (
                environment.diversity
                * weight
                * 0.5
                * (kind != "gradient" and environment.use_coverage)
            )
            if len(open_):
                covered = Coverage(torch.cat([environment.covered.data, accepted[-256:]]))
                covered.width = environment.covered.width
                accepted = torch.cat(
                    [accepted, x[open_[covered.select(x[open_], score, share, use_coverage)]]]
                )
            log.append(
                {
                    "episode": episode,
                    "diversity_weight": weight,
                    "reward": float(reward.total.mean()),
                    "novelty": float(reward.novelty.mean()),
                    "coverage": float(reward.coverage.mean()),
                    "deception": float(reward.deception.mean()),
                    "feasible": float(reward.feasible.float().mean()),
                    "detector_loss": detector_loss,
                    "latent_step": float(moved),
                    "accepted": len(accepted),
                    "effective_rank": effective_rank(accepted) if len(accepted) > 1 else 0.0,
                }
            )
            if loss is not None:
                log[-1] |= {
                    "policy_loss": loss.policy.item(),
                    "value_loss": loss.value.item(),
                    "policy_entropy": loss.entropy.item(),
                    "approx_kl": loss.approx_kl.item(),
                }
            progress("episodes", episode + 1, n_episodes, **{name: log[-1][name] for name in SHOWN})
            finished = len(accepted) >= wanted or episode == n_episodes - 1
            if not finished:
                _refresh(environment, X, y, accepted, seed, f"{kind}/{episode}")
            store.put(
                "episodes",
                {
                    "finished": finished,
                    "accepted": accepted,
                    "log": log,
                    **_state(environment, agent, generator),
                },
                episode + 1,
                n_episodes,
            )
            if finished:
                break
    return Generated(accepted, log)


@torch.no_grad()
def _detector_loss(detector, X, y, accepted):
    """Cross-entropy of W on what it has learned from so far (training rows, accepted rows), both
    classes half: nats.
    """
    normal, anomaly = X[y == 0], torch.cat([X[y == 1], accepted])
    normal = normal[:: math.ceil(len(normal) / LOSS_ROWS)]
    missed = F.softplus(-detector.score(anomaly)).mean() + F.softplus(detector.score(normal)).mean()
    return float(missed) / 2


def _state(environment, agent, generator):
    """All that an episode leaves to the next one."""
    return {
        "cvae": pack_network(environment.cvae),
        "detector": pack_network(environment.detector),
        "agent": agent.state() if agent else None,
        "generator": generator.get_state(),
        "global_generator": torch.get_rng_state(),
    }


def _load_state(state, environment, agent, generator):
    environment.cvae = unpack_network(BetaCVAE, state["cvae"])
    environment.detector = unpack_network(MoEDetector, state["detector"])
    if agent:
        agent.load_state(state["agent"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["global_generator"])


def _refresh(environment, X, y, accepted, seed, stage):
    """M8: C-VAE and detector learn from what was accepted before the next episode (copies: the
    pretrained stay).
    """
    rows, labels = (
        torch.cat([X, accepted]),
        torch.cat([y, torch.ones(len(accepted), dtype=y.dtype)]),
    )
    environment.cvae, _ = train_cvae(
        rows, labels, seed, f"refresh-cvae/{stage}", _copy(environment.cvae), steps=40
    )
    environment.detector, _ = train_detector(
        X,
        y,
        seed,
        f"refresh-detector/{stage}",
        _copy(environment.detector),
        synthetic=accepted,
        steps=40,
        lr=1e-3,
    )


def _copy(network):
    return unpack_network(type(network), pack_network(network))


@dataclass
class RunConfig(PretrainConfig):
    dataset: str = setting(
        DATASET,
        "an .npz with X and y, a .csv or .parquet with a label column, or an ADBench name",
        positional=True,
    )
    preset: str = setting("full", "paper: M1-M9 alone; full: with M10-M12", choices=tuple(PRESETS))
    generator: str = setting("rl", "where generated anomalies come from", choices=GENERATORS)
    n_experts: str = setting(
        "auto", "experts of the mixture: auto (by the data's complexity) or a number"
    )
    k: int = setting(2, "experts that run for one row")
    n_episodes: int = setting(5, "episodes of the policy")
    n_synthetic: int | None = setting(
        None, "generated anomalies (default: balances the classes, 400 to 1000)"
    )
    synthetic_share: float = setting(0.2, "share of generated rows in the anomaly half of a batch")
    unlike_weight: float = setting(0.3, "prior share of anomalies unlike the known ones (M12)")
    mixture_steps: int = setting(300, "training steps of the final mixture")
    mamba: str = setting(
        "auto", "Mamba backend: auto, torch, numba (CPU) or official (mamba-ssm, CUDA)"
    )
    plot: bool = setting(
        False, "write figures and report.html into the run's folder (needs matplotlib)"
    )
    eval_only: str | None = setting(
        None, "score the test rows with this checkpoint.pt instead of training"
    )


ESTIMATOR_SETTINGS = (
    "preset",
    "generator",
    "n_experts",
    "k",
    "n_episodes",
    "n_synthetic",
    "synthetic_share",
    "unlike_weight",
    "impute",
    "categorical",
    "cvae_steps",
    "detector_steps",
    "mixture_steps",
    "beta",
    "device",
    "mamba",
)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["score"]:
        score_file.main(argv[1:], SwiftHydra.load)
        return
    about = f"{__doc__.splitlines()[0]} To score new rows: python SwiftHydra.py score -h"
    config = parse_config(RunConfig, about, argv)
    progress = Progress(config.quiet, verbose=config.verbose)
    if config.plot:
        require_matplotlib()  # before the work, not after it
    detector = SwiftHydra(
        random_state=config.seed,
        progress=None if config.quiet else progress,
        **{name: getattr(config, name) for name in ESTIMATOR_SETTINGS},
    )
    detector.check_settings()
    rows = load_rows(config)
    data, X_train, y_train, y_test = rows.data, rows.X_train, rows.y_train, rows.y_test
    progress.say(
        f"{data.name} ({config.protocol}, seed {config.seed}): {len(y_train)} training rows with "
        f"{int(y_train.sum())} known anomalies, {len(y_test)} test rows with {int(y_test.sum())}"
    )
    if config.eval_only:
        saved = load_checkpoint(config.eval_only, "SwiftHydra")
        if saved.get("fingerprint") != fingerprint(X_train, y_train):
            raise InputError(
                f"{config.eval_only}: was trained on other rows than {data.name}, {config.protocol}, seed "
                f"{config.seed}: give the dataset, protocol and seed it was trained on"
            )
        score = SwiftHydra._from_checkpoint(saved, config.eval_only).decision_function(rows.test)
        print(_result_line(y_test, score))
        return
    with RunFolder(config.out, data.name, config.protocol, config.seed).locked() as folder:
        _run(config, folder, detector, rows, progress)


def _run(config, folder, detector, rows, progress):
    """Train, score the test rows, write the run's files and print the result line."""
    data, split, X_train, y_train, y_test = (
        rows.data,
        rows.split,
        rows.X_train,
        rows.y_train,
        rows.y_test,
    )
    known = fingerprint(X_train, y_train)
    settings = {"seed": config.seed, **{name: getattr(config, name) for name in ESTIMATOR_SETTINGS}}
    prints = {"train_fingerprint": known, "test_fingerprint": fingerprint(rows.X_test, y_test)}
    if config.resume and not config.plot:  # figures need the fitted detector
        finished = finished_run(folder, prints, settings)
        if finished is not None:
            progress.say(f"nothing is left to do: {folder.path} is done")
            print(_result_line(*finished))
            return
    store = Store(folder.path / "resume.pt", known, settings, config.resume, progress.say)
    device = resolve_device(config.device)
    effective = asdict(config) | {"device": device, "mamba": choose_backend(config.mamba, device)}
    progress.say(
        " ".join(f"{name}={value}" for name, value in effective.items() if value is not None)
    )
    report = {
        "dataset": data.name,
        "protocol": config.protocol,
        "seed": config.seed,
        "config": asdict(config),
        **prints,
        "resumed_after": store.resumed_after,
        **environment_report(),
        "n_train": len(y_train),
        "n_train_anomalies": int(y_train.sum()),
        "n_test": len(y_test),
        "n_test_anomalies": int(y_test.sum()),
        "n_features": len(data.columns),
    }
    try:
        seconds = {}
        with Clock(seconds, "pretrain"):
            pretrained = reuse_or_pretrain(folder, X_train, y_train, config, progress)
        detector.fit(rows.train, y_train, pretrained=pretrained, store=store)
        detector.seconds_ |= seconds
        with Clock(detector.seconds_, "score"):
            score = detector.decision_function(rows.test)
    except FloatingPointError as error:
        folder.write_results(report | {"failed": str(error)}, [], None, None)
        store.clear()
        raise InputError(
            f"{data.name}: the run failed and was recorded as failed: {error}"
        ) from None
    report |= {
        "device": str(device),
        "mamba_backend": effective["mamba"],
        "n_experts": detector.n_experts_,
        "effective_rank": round(detector.effective_rank_, 2),
        "n_synthetic": len(detector.synthetic_),
        "auc_roc": float(roc_auc_score(y_test, score)),
        "auc_pr": float(average_precision_score(y_test, score)),
        "seconds": detector.seconds_,
        "peak_memory_mib": peak_memory_mib(),
        "failed": None,
    }
    log = [
        *pretrained.log,
        *({"stage": "episodes", **entry} for entry in detector.episode_log_),
        *detector.detector_.log_,
    ]
    arrays = {
        "y_test": y_test,
        "score": score,
        "test_index": split.test,
        "train_index": split.train,
    }
    figures = {}
    if config.plot:
        scaler = detector.scaler_
        run = Run(
            y_train,
            detector.decision_scores_,
            scaler.transform(X_train),
            y_test,
            score,
            scaler.transform(rows.X_test),
            scaler.transform(detector.synthetic_),
            log,
            detector.n_experts_,
            detector.detector_.expert_usage,
        )
        figures = draw_run(run, report)
    folder.write_results(report, log, arrays, detector.checkpoint(known), figures)
    write_tensorboard(folder.path / "tensorboard", log)
    store.clear()
    if figures:
        progress.say(f"figures: {folder.path / 'report.html'}")
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in detector.seconds_.items())
    progress.say(
        f"{len(detector.synthetic_)} anomalies generated ({config.generator}), {detector.n_experts_} experts; "
        f"seconds: {seconds}; written to {folder.path}"
    )
    print(_result_line(y_test, score))


def _result_line(y, score):
    return f"AUC-ROC {roc_auc_score(y, score):.4f}  AUC-PR {average_precision_score(y, score):.4f}"


def command():
    """The console command ``swift-hydra``."""
    run_main(main)


if __name__ == "__main__":
    command()
