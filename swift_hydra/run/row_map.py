"""The map of a run's rows: where generated rows lie among training and test rows.

It shows two or three projections side by side: principal components, t-SNE and, if umap-learn is
installed, UMAP.
"""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from swift_hydra.geometry import BOUND, Neighbours, share_nearer
from swift_hydra.run.page import GREEN, GREY, ORANGE, SKY, WIDTH

MOST_COMPARED = 4096  # most normal rows in :func:`closeness`
MAP_ROWS = 200  # most points of each kind in the map: t-SNE then takes seconds
MAP_DIRECTIONS = 50  # most principal components that t-SNE and UMAP get


def map_of_rows(plt, run):
    """A figure with one panel per method, with the same rows, colours and markers in each."""
    kinds = [
        ("train, normal", run.Z_train[run.y_train == 0], {"color": GREY, "marker": "o", "s": 6}),
        ("test, normal", run.Z_test[run.y_test == 0], {"color": SKY, "marker": "^", "s": 8}),
        ("generated", run.generated, {"color": GREEN, "marker": "+", "s": 14}),
        ("train, anomaly", run.Z_train[run.y_train == 1], {"color": ORANGE, "marker": "D", "s": 6}),
        ("test, anomaly", run.Z_test[run.y_test == 1], {"color": "black", "marker": "x", "s": 9}),
    ]
    rng = np.random.default_rng(0)
    kinds = [
        (label, rows[rng.permutation(len(rows))[:MAP_ROWS]], look)
        for label, rows, look in kinds
        if len(rows)
    ]
    rows = np.concatenate([rows for _, rows, _ in kinds]).astype(np.float64)
    ends = np.cumsum([len(rows) for _, rows, _ in kinds])[:-1]
    panels = [panel(rows, run.Z_train) for panel in (_pca, _tsne, _umap)]
    panels = [panel for panel in panels if panel is not None]
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.6 if len(panels) == 2 else 2.9))
    for axis, (at, title, across, up) in zip(axes, panels, strict=True):
        for part, (label, _, look) in zip(np.split(at, ends), kinds, strict=True):
            axis.scatter(*part.T, linewidths=0.7, label=label, **look)
        axis.set(title=title, xlabel=across, ylabel=up)
    for axis in axes[1:]:  # the axes of t-SNE and UMAP have no units
        axis.set(xticks=[], yticks=[])
    shares = closeness(run)
    if shares is not None:
        figure.suptitle(
            "nearer to a generated row than to any known anomaly: {:.0%} of the test anomalies\n"
            "(nearer to a normal row moved as far at random: {:.0%})".format(*shares),
            fontsize=8,
        )
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(kinds),
        columnspacing=1.2,
        handletextpad=0.2,
        markerscale=1.5,
    )
    return figure


def closeness(run):
    """The share of test anomalies that are nearer to a generated row than to any known anomaly.

    Returns:
        That share, and as a baseline the share for as many training normals, each moved in a random
        direction by the distance of a generated row from its nearest normal; None if a kind of rows
        is missing.
    """
    normals, known = (run.Z_train[run.y_train == label] for label in (0, 1))
    unknown = run.Z_test[run.y_test == 1]
    if not (len(known) and len(unknown) and len(run.generated) and len(normals)):
        return None
    rng = np.random.default_rng(0)
    normals = normals[rng.permutation(len(normals))[:MOST_COMPARED]]
    away = Neighbours(normals).nearest(run.generated, 1)[0]  # (s, 1)
    direction = rng.normal(size=run.generated.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    moved = normals[rng.integers(len(normals), size=len(direction))] + away * direction
    moved = np.clip(moved, -BOUND, BOUND)
    return tuple(share_nearer(unknown, rows, known) for rows in (run.generated, moved))


def _pca(rows, Z_train):
    pca = PCA(min(2, *Z_train.shape))
    with np.errstate(invalid="ignore"):  # of constant rows all shares of variance are 0 / 0
        pca.fit(Z_train)
    varies = np.ptp(Z_train, axis=0).any()
    at, share = (
        pca.transform(rows),
        100 * pca.explained_variance_ratio_ if varies else np.zeros(pca.n_components_),
    )
    names = [f"component {i + 1} ({value:.0f} % of variance)" for i, value in enumerate(share)]
    if at.shape[1] == 1:  # one feature: a line of points would hide them
        at, names = (
            np.column_stack([at, np.random.default_rng(0).random(len(at))]),
            [names[0], "at random"],
        )
    return at, "PCA of the training rows", *names


def _directions(rows):
    """The rows' principal components, and the first two in the scale from which t-SNE starts.

    A little noise separates equal rows, and gives a single feature a second direction: no method
    leaves a line by itself.
    """
    with np.errstate(invalid="ignore"):
        at = PCA(min(MAP_DIRECTIONS, *rows.shape)).fit_transform(rows)
    start = 1e-3 * np.random.default_rng(0).standard_normal((len(at), 2))
    start[:, : at.shape[1]] += at[:, :2]
    return at, 1e-4 * start / start[:, 0].std()


def _tsne(rows, _):
    at, start = _directions(rows)
    tsne = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init=start, max_iter=500, random_state=0)
    return (
        tsne.fit_transform(at.astype(np.float32)),
        "t-SNE of the points shown",
        "t-SNE 1",
        "t-SNE 2",
    )


def _umap(rows, _):
    try:
        from umap import UMAP
    except ImportError:
        return None
    at, start = _directions(rows)
    model = UMAP(n_neighbors=min(15, len(rows) - 1), init=1e5 * start, random_state=0, n_jobs=1)
    return model.fit_transform(at), "UMAP of the points shown", "UMAP 1", "UMAP 2"
