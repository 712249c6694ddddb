"""Figures of a run (``--plot``): curves, scores, a map of real and generated rows, the episodes.

Needs matplotlib, imported only here. Colours are the Okabe-Ito set, and line styles or markers differ as well, so that
the figures survive a grey print and colour-blind eyes.
"""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from config import InputError

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
MAP_ROWS = 2000  # most points of each kind in the map


def require_matplotlib():
    """matplotlib.pyplot without a display.

    Raises:
        InputError: with the line that installs it.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("--plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot_run(folder, y_test, score, Z_train, y_train, Z_test, synthetic, episode_log):
    """Write the figures into ``folder``.

    Args:
        folder: a Path. y_test, score: (n_test,). Z_train, Z_test: standardised rows. synthetic: (m, d) standardised.
        episode_log: the dicts of :mod:`episodes`.

    Returns:
        The paths written.
    """
    plt = require_matplotlib()
    figures = {"curves.png": _curves(plt, y_test, score), "scores.png": _scores(plt, y_test, score),
               "map.png": _map(plt, Z_train, y_train, Z_test, y_test, synthetic)}  # fmt: skip
    if len(episode_log) > 1:
        figures["episodes.png"] = _episodes(plt, episode_log)
    paths = []
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=150, bbox_inches="tight")
        plt.close(figure)
        paths.append(folder / name)
    return paths


def _curves(plt, y, score):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
    false, true, _ = roc_curve(y, score)
    left.plot(false, true, color=BLUE)
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    left.set(xlabel="false positive rate", ylabel="true positive rate", title=f"ROC, area {auc(false, true):.4f}")
    precision, recall, _ = precision_recall_curve(y, score)
    right.plot(recall, precision, color=BLUE)
    right.axhline(np.mean(y), color=GREY, linestyle=":")
    right.set(xlabel="recall", ylabel="precision", title=f"PR, average {average_precision_score(y, score):.4f}")
    figure.tight_layout()
    return figure


def _scores(plt, y, score):
    figure, axis = plt.subplots(figsize=(5, 3.4))
    bins = np.histogram_bin_edges(score, bins=40)
    axis.hist(score[y == 0], bins, density=True, color=BLUE, alpha=0.6, label="normal")
    axis.hist(score[y == 1], bins, density=True, histtype="step", color=ORANGE, linewidth=1.8, label="anomaly")
    axis.set(xlabel="score (log-odds)", ylabel="density", title="scores of the test rows")
    axis.legend()
    return figure


def _map(plt, Z_train, y_train, Z_test, y_test, synthetic):
    """Two principal components of the training rows; the share of variance they show is in the title."""
    rng, pca = np.random.default_rng(0), PCA(2 if Z_train.shape[1] > 1 else 1).fit(Z_train)
    figure, axis = plt.subplots(figsize=(6, 4.6))
    parts = [("train, normal", Z_train[y_train == 0], GREY, "."), ("test, anomaly", Z_test[y_test == 1], GREEN, "x"),
             ("generated", synthetic, BLUE, "+"), ("train, anomaly", Z_train[y_train == 1], ORANGE, "o")]  # fmt: skip
    for label, rows, colour, marker in parts:
        if len(rows):
            at = pca.transform(rows[rng.permutation(len(rows))[:MAP_ROWS]])
            across = at[:, 1] if at.shape[1] > 1 else np.zeros(len(at))
            axis.scatter(at[:, 0], across, s=14, c=colour, marker=marker, linewidths=0.8, alpha=0.7, label=label)
    axis.set(xlabel="first component", ylabel="second component",
             title=f"PCA, {100 * pca.explained_variance_ratio_.sum():.0f} % of the variance")  # fmt: skip
    axis.legend(fontsize=8)
    return figure


def _episodes(plt, log):
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharex=True)
    episode = [entry["episode"] for entry in log]
    for axis, names in zip(axes, (("reward", "deception"), ("novelty", "coverage", "feasible"), ("effective_rank",)),
                           strict=True):  # fmt: skip
        for name, colour, style in zip(names, (BLUE, ORANGE, GREEN), ("-o", "--s", ":^"), strict=False):
            axis.plot(episode, [entry[name] for entry in log], style, color=colour, label=name.replace("_", " "))
        axis.set(xlabel="episode", xticks=episode)
        axis.legend(fontsize=8)
    figure.tight_layout()
    return figure
