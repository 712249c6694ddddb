"""The detector that is finally used: the mixture alone (M9), or with evidence and closed-form
experts (M9-M12).

Both classes train on standardised real rows plus generated anomalies and score standardised rows;
neither knows files, scalers or where the generated rows came from. ``training_scores_`` are scores
of the training rows, which calibration and thresholds need; in :class:`FullDetector` every one of
them comes from models that did not learn from its row.
"""

import numpy as np
import torch

from swift_hydra.detection.evidence import Evidence, column_index
from swift_hydra.detection.kernel_expert import KernelExpert
from swift_hydra.detection.mixture import MixtureDetector, out_of_fold, stratified_folds
from swift_hydra.detection.pvalue import MergedPValue, known_or_unlike, platt, shrunken_shape
from swift_hydra.journal import NO_STORE, Clock
from swift_hydra.model import BetaCVAE
from swift_hydra.pretrain import train_cvae
from swift_hydra.snapshot import pack_network, read_network
from swift_hydra.training.seeds import stage_seed

N_FOLDS = 4  # folds of the left-out predictions that M12 is calibrated on
ONE_CLASS_STEPS = 200  # seven columns are learned sooner than a table
CLIP = (-4.0, 8.0)  # evidence columns as experts see them, in standard deviations of the normals
# Which evidence columns each part sees. The ratios know the anomalies: they are no one-class
# evidence.
MIXTURE_COLUMNS = ("knn5", "knn20", "lof5", "gaussian", "pca", "cvae", "ratio1", "ratio3", "ratio5")
ONE_CLASS_COLUMNS = ("knn5", "knn20", "lof5", "lof20", "gaussian", "pca", "cvae")
KERNEL_COLUMNS = ("knn5", "lof5", "ratio1", "ratio3", "ratio5")
# (norm, rounds of feature learning, with evidence columns)
KERNELS = (("l2", 2, False), ("l1", 1, False), ("l1", 1, True))


class FullDetector(MixtureDetector):
    """Mixture and kernel experts on features and evidence, "known anomaly OR unlike normals"
    (``preset="full"``).
    """

    def fit(self, Z, labels, synthetic, progress, seconds, store=NO_STORE):
        s, X, y = self.settings, Z.numpy(), labels.numpy()
        folds = stratified_folds(y, N_FOLDS, s.seed)
        with Clock(seconds, "evidence"):
            half = folds % 2
            self.half_cvaes = [
                train_cvae(
                    Z[half != h],
                    labels[half != h],
                    s.seed,
                    f"cvae-half{h}",
                    steps=s.cvae_steps,
                    beta=s.beta,
                    progress=progress,
                    store=store,
                )[0]
                for h in (0, 1)
            ]
            self.evidence = Evidence(_residual_functions(self.half_cvaes))
            rng = np.random.default_rng(stage_seed(s.seed, "evidence"))
            columns = self.evidence.fit_transform(X, y, folds, half, rng)
            fake = synthetic.numpy()
            fake_columns = self.evidence.transform(fake) if len(fake) else columns[:0]
        with Clock(seconds, "mixture"):
            rows, fake_rows = (
                _beside(*pair, MIXTURE_COLUMNS) for pair in ((X, columns), (fake, fake_columns))
            )
            self.mixture, left_out = self._train_left_out(
                rows,
                labels,
                fake_rows,
                folds,
                "mixture",
                progress,
                store,
                s.synthetic_share,
                s.n_experts,
            )
        with Clock(seconds, "kernels"):
            experts = [left_out]
            self.kernels = []
            for number, (norm, rounds, _) in enumerate(KERNELS):
                expert = KernelExpert(norm, rounds)
                rng = np.random.default_rng(stage_seed(s.seed, f"kernel{number}"))
                experts.append(expert.fit(_kernel_inputs(number, X, columns), y, rng))
                self.kernels.append(expert)
        with Clock(seconds, "one-class"):
            one_class = columns[:, column_index(("knn5",))]
            self.one_class = None
            if len(synthetic):
                # Only generated rows stand for anomalies here: known ones would teach it what it
                # has to do without.
                self.one_class, left_out = self._train_left_out(
                    _shown(columns, ONE_CLASS_COLUMNS),
                    labels,
                    _shown(fake_columns, ONE_CLASS_COLUMNS),
                    folds,
                    "one-class",
                    progress,
                    store,
                    1.0,
                    min(s.n_experts, N_FOLDS),
                    min(s.steps, ONE_CLASS_STEPS),
                )
                one_class = np.column_stack([one_class, left_out])
        normal = y == 0
        experts = np.column_stack(experts)
        self.known, self.unlike = (
            MergedPValue().fit(experts[normal]),
            MergedPValue().fit(one_class[normal]),
        )
        pairs = (self.known, experts), (self.unlike, one_class)
        self.shapes = [shrunken_shape(side.minus_log_p(scores[~normal])) for side, scores in pairs]
        self.calibration = 1.0, 0.0
        self.calibration = platt(self._combine(experts, one_class), y)
        self.training_scores_ = self._combine(experts, one_class)
        return self

    def _train_left_out(
        self, rows, labels, synthetic, folds, stage, progress, store, share, n_experts, steps=None
    ):
        """A mixture, and its logits on training rows by experts that did not learn from them."""
        if n_experts > 1:
            folds = folds % min(N_FOLDS, n_experts)
            mixture = self._train(
                rows, labels, synthetic, stage, progress, store, share, n_experts, folds, steps
            )
            return mixture, out_of_fold(mixture, rows.to(self.settings.device), folds).cpu().numpy()
        mixture = self._train(
            rows, labels, synthetic, stage, progress, store, share, 1, steps=steps
        )
        logits = np.empty(len(rows))
        for h in (
            0,
            1,
        ):  # one expert leaves nothing out: two further ones, on half of the rows each, do
            seen = torch.from_numpy(folds % 2 != h)
            half = self._train(
                rows[seen],
                labels[seen],
                synthetic,
                f"{stage}-half{h}",
                progress,
                store,
                share,
                1,
                steps=steps,
            )
            logits[~seen.numpy()] = self._logits(half, rows[~seen])
        return mixture, logits

    def parts(self, Z):
        """Scores before they are combined: the experts' (n, 1 + kernels) and the one-class scores
        (n, 1 or 2).
        """
        columns = self.evidence.transform(Z)
        experts = [self._logits(self.mixture, _beside(Z, columns, MIXTURE_COLUMNS))]
        experts += [
            expert.score(_kernel_inputs(i, Z, columns)) for i, expert in enumerate(self.kernels)
        ]
        one_class = columns[:, column_index(("knn5",))]
        if self.one_class is not None:
            learned = self._logits(self.one_class, _shown(columns, ONE_CLASS_COLUMNS))
            one_class = np.column_stack([one_class, learned])
        return np.column_stack(experts), one_class

    def score(self, Z):
        return self._combine(*self.parts(Z))

    def _mixture_inputs(self, Z):
        return _beside(Z, self.evidence.transform(Z), MIXTURE_COLUMNS)

    def _combine(self, experts, one_class):
        """The experts' p-value (M11) OR the one-class p-value (M12), as class-balanced log-odds:
        (n,).
        """
        known, unlike = self.known.minus_log_p(experts), self.unlike.minus_log_p(one_class)
        slope, shift = self.calibration
        return (
            slope * known_or_unlike(known, unlike, self.settings.unlike_weight, self.shapes) + shift
        )

    def state(self):
        return {
            "mixture": pack_network(self.mixture),
            "half_cvaes": [pack_network(cvae) for cvae in self.half_cvaes],
            "evidence": self.evidence.state(),
            "kernels": [expert.state() for expert in self.kernels],
            "one_class": None if self.one_class is None else pack_network(self.one_class),
            "calibration": list(self.calibration),
            "shapes": self.shapes,
            "known": self.known.state(),
            "unlike": self.unlike.state(),
        }

    def load_state(self, state):
        super().load_state(state)
        self.half_cvaes = [read_network(BetaCVAE, packed) for packed in state["half_cvaes"]]
        self.evidence = Evidence.from_state(state["evidence"], _residual_functions(self.half_cvaes))
        self.kernels = [KernelExpert.from_state(packed) for packed in state["kernels"]]
        self.one_class = None if state["one_class"] is None else self._unpack(state["one_class"])
        self.calibration, self.shapes = state["calibration"], state["shapes"]
        self.known, self.unlike = (
            MergedPValue.from_state(state["known"]),
            MergedPValue.from_state(state["unlike"]),
        )
        return self


def _shown(columns, names):
    """The named evidence columns as an expert sees them: (n, len(names)) float32 tensor."""
    return torch.from_numpy(np.clip(columns[:, column_index(names)], *CLIP).astype(np.float32))


def _beside(Z, columns, names):
    """Features and named evidence side by side: (n, d + len(names)) float32 tensor."""
    return torch.cat(
        [torch.from_numpy(np.asarray(Z, dtype=np.float32)), _shown(columns, names)], dim=1
    )


def _kernel_inputs(number, Z, columns):
    return _beside(Z, columns, KERNEL_COLUMNS).numpy() if KERNELS[number][2] else Z


def _residual_functions(cvaes):
    return [_Residual(cvae) for cvae in cvaes]


class _Residual:
    """A C-VAE's residual on arrays; a class, since a fitted estimator has to be picklable."""

    def __init__(self, cvae):
        self.cvae = cvae

    def __call__(self, Z):
        rows = torch.from_numpy(np.asarray(Z, dtype=np.float32))
        return self.cvae.residual(rows).numpy().astype(np.float64)
