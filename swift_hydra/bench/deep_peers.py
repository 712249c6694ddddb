"""Networks of other people's papers, as small PyTorch versions after the papers' descriptions.

Architecture, batch sizes, epochs and learning rates are those of the papers or of their authors'
published settings. Each network depends on its seed alone, runs on the CPU, and leaves the global
random state as it was. ``peers.py`` says which rows they get.

They are reimplemented because the package that contains these methods needs an older PyTorch than
this project.
"""

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Network:
    """Base class of the networks: a seed, training from labels, scores in float64.

    A subclass has ``train(X, normals, anomalies)`` with rows (n, d) float32 and the indices of the
    rows labelled 0 and 1, and ``score(X)``, the scores (n,) of rows (n, d).

    Args:
        seed: seed of the weights and the batches, 0 or more.
    """

    def __init__(self, seed):
        self.seed = seed

    def fit(self, X, y=None):
        """Train on rows.

        Args:
            X: (n, d) numbers, scaled.
            y: (n,) labels 0 and 1, at least one of each for a method that learns from labels; None
                for the others.

        Returns:
            Itself.
        """
        X = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
        y = np.zeros(len(X)) if y is None else np.asarray(y)
        normals, anomalies = (torch.from_numpy(np.flatnonzero(y == label)) for label in (0, 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.train(X, normals, anomalies)
        return self

    def decision_function(self, X):
        """Scores (n,) float64 of rows X (n, d); higher is more anomalous."""
        X = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
        with torch.no_grad():
            return self.score(X).double().numpy()


def drawn(group, size):
    """Indices (size,), drawn with replacement from the indices (k,) of a group."""
    return group[torch.randint(len(group), (size,))]


def step(optimiser, loss, parameters=None):
    """One optimiser step; with ``parameters`` the norm of their gradient is clipped at 1."""
    optimiser.zero_grad()
    loss.backward()
    if parameters is not None:
        nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()


def shuffled_batches(n, size):
    """Index batches of one pass over n rows; a last batch of a single row is left out.

    Batch normalisation cannot estimate a variance from one row.
    """
    batches = torch.randperm(n).split(size)
    return [rows for rows in batches if len(rows) > 1 or n == 1]


class DevNet(Network):
    """Deviation network (Pang, Shen and van den Hengel, KDD 2019), in its authors' settings.

    It has one hidden layer of 20 units. A normal row's score should deviate little from the mean of
    5,000 draws of N(0, 1), made once, an anomaly's by at least five standard deviations. The
    weights are those of the last epoch; those of the epoch with the least loss, which the authors
    keep, score the same within .0005 (30 sets, four protocols, one seed).

    Args:
        seed: seed of the weights and the batches.
    """

    MARGIN = 5.0
    HIDDEN = 20
    BATCH = 512
    EPOCHS = 50
    BATCHES = 20  # per epoch
    PENALTY = 0.01  # factor of the hidden layer's squared weights

    def train(self, X, normals, anomalies):
        hidden = nn.Linear(X.shape[1], self.HIDDEN)
        self.net = nn.Sequential(hidden, nn.ReLU(), nn.Linear(self.HIDDEN, 1))
        half = self.BATCH // 2  # normals first, anomalies after them
        optimiser = torch.optim.RMSprop(self.net.parameters(), lr=1e-3, alpha=0.9)
        reference = torch.randn(5000)
        for _ in range(self.EPOCHS * self.BATCHES):
            rows = torch.cat([drawn(normals, half), drawn(anomalies, half)])  # (B,)
            deviation = (self.net(X[rows])[:, 0] - reference.mean()) / reference.std()  # (B,)
            missed = torch.cat([deviation[:half].abs(), F.relu(self.MARGIN - deviation[half:])])
            loss = missed.mean() + self.PENALTY * hidden.weight.square().sum()
            step(optimiser, loss, self.net.parameters())

    def score(self, X):
        return self.net(X)[:, 0]


class PReNet(Network):
    """Pairwise relation network (Pang, Shen, Jin and van den Hengel, KDD 2023).

    A network with one hidden layer of 20 units, shared by both rows of a pair, predicts how many
    anomalies the pair holds: 8 for two, 4 for one, 0 for none. Half of a batch are pairs of rows
    labelled 0, a quarter mixed pairs, a quarter pairs of anomalies. A row's score is its mean
    relation to 30 known anomalies and to 30 rows labelled 0.

    Args:
        seed: seed of the weights, the pairs and the 30 + 30 rows.
    """

    HIDDEN = 20
    BATCH = 512
    EPOCHS = 50
    BATCHES = 20  # per epoch
    PARTNERS = 30
    TARGETS = (0.0, 4.0, 8.0)

    def train(self, X, normals, anomalies):
        self.encoder = nn.Sequential(nn.Linear(X.shape[1], self.HIDDEN), nn.ReLU())
        self.head = nn.Linear(2 * self.HIDDEN, 1)
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        # The paper's penalty, .01 times the squared weights, applies to the hidden layer alone.
        hidden = {"params": [self.encoder[0].weight], "weight_decay": 0.02}
        rest = {"params": [self.encoder[0].bias, *self.head.parameters()]}
        optimiser = torch.optim.RMSprop([hidden, rest], lr=1e-3, alpha=0.9)
        quarter = self.BATCH // 4
        counts = torch.tensor([2 * quarter, quarter, quarter])
        target = torch.repeat_interleave(torch.tensor(self.TARGETS), counts)  # (B,)
        for _ in range(self.EPOCHS * self.BATCHES):
            left = torch.cat([drawn(anomalies, quarter), drawn(anomalies, quarter)])
            left = torch.cat([drawn(normals, 2 * quarter), left])
            right = torch.cat([drawn(normals, 3 * quarter), drawn(anomalies, quarter)])
            related = self.relation(self.encoder(X[left]), self.encoder(X[right]))  # (B,)
            step(optimiser, (related - target).abs().mean(), parameters)
        with torch.no_grad():
            groups = (anomalies, normals)
            partners = [self.encoder(X[drawn(group, self.PARTNERS)]) for group in groups]
            # The head is linear, so the mean relation to all is the relation to their mean code.
            self.anomaly, self.normal = (codes.mean(0) for codes in partners)  # (hidden,) each

    def relation(self, left, right):
        """Relations (n,) of pairs of codes (n, hidden); a known anomaly is on the left."""
        return self.head(torch.cat([left, right], 1))[:, 0]

    def score(self, X):
        code = self.encoder(X)  # (n, hidden)
        to_anomalies = self.relation(self.anomaly.expand_as(code), code)
        to_normals = self.relation(code, self.normal.expand_as(code))
        return (to_anomalies + to_normals) / 2


class DeepSAD(Network):
    """Deep semi-supervised anomaly detection (Ruff et al., ICLR 2020).

    The encoder of an autoencoder is trained to map rows labelled 0 near a centre, and known
    anomalies far from it, with the inverse of their squared distance as the loss. The squared
    distance is also the score. The networks are the authors' for tables of values between 0 and 1:
    32, 16 and 8 units, or 128, 64 and 32 for more than 100 features. They have no biases, which
    excludes the trivial solution.

    Args:
        seed: seed of the weights and the batches.
    """

    BATCH = 128
    EPOCHS = 50
    EPOCHS_OF_AUTOENCODER = 100
    RATE = 1e-3
    DECAY = 1e-6
    ETA = 1.0  # weight of the known anomalies
    LEAST = 0.1  # a centre's coordinate closer to 0 could be met by zero weights

    def train(self, X, normals, anomalies):
        d = X.shape[1]
        widths = [d, 128, 64, 32] if d > 100 else [d, 32, 16, 8]
        self.encoder = unbiased(widths)
        self.pretrain(X, nn.Sequential(self.encoder, unbiased(widths[::-1]), nn.Sigmoid()))
        labels = torch.zeros(len(X), dtype=torch.bool)
        labels[anomalies] = True
        self.encoder.eval()
        with torch.no_grad():
            centre = self.encoder(X).mean(0)
        sign = torch.where(centre < 0, -1.0, 1.0)
        self.centre = torch.where(centre.abs() < self.LEAST, self.LEAST * sign, centre)
        self.encoder.train()
        optimiser = self.adam(self.encoder)
        for _ in range(self.EPOCHS):
            for rows in shuffled_batches(len(X), self.BATCH):
                distance = self.distance(X[rows])
                away = self.ETA / (distance + 1e-6)
                step(optimiser, torch.where(labels[rows], away, distance).mean())
        self.encoder.eval()

    def pretrain(self, X, autoencoder):
        optimiser = self.adam(autoencoder)
        for _ in range(self.EPOCHS_OF_AUTOENCODER):
            for rows in shuffled_batches(len(X), self.BATCH):
                step(optimiser, F.mse_loss(autoencoder(X[rows]), X[rows]))

    def adam(self, net):
        return torch.optim.Adam(net.parameters(), lr=self.RATE, weight_decay=self.DECAY)

    def distance(self, X):
        return (self.encoder(X) - self.centre).square().sum(1)

    def score(self, X):
        return self.distance(X)


def hidden_end(width):
    """The layers after a hidden layer: batch normalisation without weights, leaky ReLU."""
    return [nn.BatchNorm1d(width, eps=1e-4, affine=False), nn.LeakyReLU()]


def unbiased(widths):
    """Linear layers of these widths without biases, the last one without an activation."""
    layers = []
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        layers += [*(hidden_end(n_in) if i else []), nn.Linear(n_in, n_out, bias=False)]
    return nn.Sequential(*layers)


class FeaWAD(Network):
    """Feature encoding with autoencoders (Zhou, Song, Zhang, Liu, Zhu and Liu, TNNLS 2021).

    An autoencoder is trained on the rows labelled 0. Its code and the direction of its residual
    then go through layers of 256 and 32 units to a score; the length of the residual, the error, is
    added to the input of every layer. Both parts are trained end to end: score and error should be
    small for rows labelled 0 and at least 5 for anomalies.

    Args:
        seed: seed of the weights and the batches.
    """

    MARGIN = 5.0
    CODE = (128, 64)
    HEAD = (256, 32)
    BATCH = 512
    BATCHES = 20  # per epoch
    EPOCHS = 30
    EPOCHS_OF_AUTOENCODER = 100
    RATE = 1e-4

    def train(self, X, normals, anomalies):
        d = X.shape[1]
        self.encoder = _relu_layers([d, d, *self.CODE])
        self.decoder = _relu_layers([self.CODE[-1], *self.CODE[-2::-1]])
        self.decoder.append(_layer(self.CODE[0], d))
        inputs = [d + self.CODE[-1] + 1, *(width + 1 for width in self.HEAD)]
        self.head = nn.ModuleList(map(_layer, inputs, [*self.HEAD, 1]))
        modules = nn.ModuleList([self.encoder, self.decoder])
        optimiser = torch.optim.Adam(modules.parameters(), lr=self.RATE)
        for _ in range(self.EPOCHS_OF_AUTOENCODER * self.BATCHES):
            x = X[drawn(normals, self.BATCH)]
            step(optimiser, F.mse_loss(self.decoder(self.encoder(x)), x))
        modules.append(self.head)
        optimiser = torch.optim.Adam(modules.parameters(), lr=self.RATE)
        half = self.BATCH // 2
        for _ in range(self.EPOCHS * self.BATCHES):
            for_normals, for_anomalies = 0.0, 0.0
            rows = torch.cat([drawn(normals, half), drawn(anomalies, half)])
            for value in self.judged(X[rows]):  # score and error, (B,) each
                for_normals = for_normals + value[:half].abs().mean()
                for_anomalies = for_anomalies + F.relu(self.MARGIN - value[half:]).mean()
            step(optimiser, (for_normals + for_anomalies) / 2)

    def judged(self, X):
        """Scores (n,) and reconstruction errors (n,) of rows (n, d)."""
        code = self.encoder(X)
        residual = self.decoder(code) - X
        error = residual.norm(dim=1, keepdim=True)  # (n, 1)
        hidden = torch.cat([code, residual / error.clamp_min(1e-8)], 1)
        for i, layer in enumerate(self.head):
            hidden = layer(torch.cat([F.relu(hidden) if 0 < i else hidden, error], 1))
        return hidden[:, 0], error[:, 0]

    def score(self, X):
        return self.judged(X)[0]


def _layer(n_in, n_out):
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _relu_layers(widths):
    pairs = pairwise(widths)
    return nn.Sequential(*(part for pair in pairs for part in (_layer(*pair), nn.ReLU())))


class RoSAS(Network):
    """Contamination-resilient, continuous supervision (Xu et al., IP&M 2023).

    A triplet loss on two rows labelled 0 and an anomaly separates the codes (margin 5). For
    mixtures of two rows the targets are the mixture of their labels, -1 and 1, and the mixture of
    their scores, so that a hidden anomaly among the rows labelled 0 has less weight. The code has
    32 units after a hidden layer of 32, the score head 16; only the last layer has a bias.

    Args:
        seed: seed of the weights, the triplets and the mixtures.
    """

    WIDTH = 32
    MARGIN = 5.0
    ALPHA = 0.5  # parameter of the Beta distribution of the mixtures
    BATCH = 128
    EPOCHS = 100
    LEAST_BATCHES = 16  # per epoch; more if one pass over the rows has more
    RATE = 5e-3

    def train(self, X, normals, anomalies):
        width = self.WIDTH
        self.encoder = nn.Sequential(
            nn.Linear(X.shape[1], width, bias=False),
            nn.LeakyReLU(),
            nn.Linear(width, width, bias=False),
        )
        self.head = nn.Sequential(
            nn.Linear(width, width // 2, bias=False), nn.LeakyReLU(), nn.Linear(width // 2, 1)
        )
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=self.RATE, weight_decay=1e-5)
        n_batches = max(self.LEAST_BATCHES, len(X) // self.BATCH)
        target = torch.tensor([-1.0, -1.0, 1.0]).repeat_interleave(self.BATCH)  # (3 B,)
        for _ in range(self.EPOCHS * n_batches):
            rows = [drawn(group, self.BATCH) for group in (normals, normals, anomalies)]
            x = X[torch.cat(rows)]  # anchors, positives, negatives, (3 B, d)
            code = self.encoder(x)
            parted = F.triplet_margin_loss(*code.split(self.BATCH), margin=self.MARGIN)
            own = torch.tanh(self.head(code))[:, 0]
            other = torch.randperm(len(x))
            share = self.shares(len(x))
            mixed = share[:, None] * x + (1 - share[:, None]) * x[other]
            score = torch.tanh(self.score(mixed))
            taught = F.smooth_l1_loss(score, share * target + (1 - share) * target[other])
            consistent = F.smooth_l1_loss(score, share * own + (1 - share) * own[other])
            step(optimiser, (parted + taught + consistent) / 2)

    def shares(self, size):
        """Draws (size,) of Beta(ALPHA, ALPHA)."""
        alpha = torch.full((size,), self.ALPHA)
        return torch.distributions.Beta(alpha, alpha).sample()

    def score(self, X):
        # Without the tanh: the order is the same, without ties where float32 rounds tanh to 1.
        return self.head(self.encoder(X))[:, 0]


class DDAE(Network):
    """Diffusion-scheduled denoising autoencoder (Sattarov, Schreyer and Borth, KDD 2025).

    It restores rows to which the noise of a random one of 50 diffusion steps was added (variances
    from 1e-4 to 2e-2, linear); the step is given as sines and cosines. It has two layers of 512
    leaky ReLUs. The score is the distance between a row and its restoration, averaged over all
    steps but the first. A batch is about a tenth of the rows. It uses no labels.

    Args:
        seed: seed of the weights, the batches, and the noise in training and scoring.
    """

    HIDDEN = 512
    STEPS = 50
    TIME = 4  # numbers that encode the step
    BATCHES = 10  # per epoch, roughly: a batch is a power of two
    EPOCHS = 100
    RATE = 1e-3

    def train(self, X, normals, anomalies):
        d = X.shape[1]
        batch = 2 ** max(round(math.log2(len(X) / self.BATCHES)), 0)
        self.kept = torch.cumprod(1 - torch.linspace(1e-4, 2e-2, self.STEPS), 0)  # (steps,)
        frequency = torch.exp(-math.log(1e4) * torch.arange(self.TIME // 2) / (self.TIME // 2))
        angle = torch.arange(self.STEPS)[:, None] * frequency
        self.times = torch.cat([angle.cos(), angle.sin()], 1)  # (steps, TIME)
        self.net = nn.Sequential(
            nn.Linear(d + self.TIME, self.HIDDEN),
            nn.LeakyReLU(),
            nn.Linear(self.HIDDEN, self.HIDDEN),
            nn.LeakyReLU(),
            nn.Linear(self.HIDDEN, d),
        )
        optimiser = torch.optim.Adam(self.net.parameters(), lr=self.RATE)
        for _ in range(self.EPOCHS):
            for rows in torch.randperm(len(X)).split(batch):
                x = X[rows]
                steps = torch.randint(1, self.STEPS, (len(x),))
                step(optimiser, F.mse_loss(self.restored(x, steps, torch.randn_like(x)), x))

    def restored(self, X, steps, noise):
        """Restore rows (n, d) to which noise (n, d) of N(0, 1) was added by steps (n,)."""
        kept = self.kept[steps, None]
        noised = kept.sqrt() * X + (1 - kept).sqrt() * noise
        return self.net(torch.cat([noised, self.times[steps]], 1))

    def score(self, X):
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.zeros(len(X))
        for t in range(1, self.STEPS):
            noise = torch.randn(X.shape, generator=generator)
            steps = torch.full((len(X),), t)
            total += (self.restored(X, steps, noise) - X).norm(dim=1)
        return total / (self.STEPS - 1)
