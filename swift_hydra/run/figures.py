"""Figures of a run (``--plot``), as PNG files and together in one ``report.html``.

They need matplotlib, imported only here. Besides colours (see ``page.py``) line styles, markers or
hatches differ, so that figures are readable in grey and for colour-blind readers. A figure is as
wide as a printed page's text, so that its letters are printed in the size set here.
"""

import io
from typing import NamedTuple

import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from swift_hydra.run.page import BLUE, GREEN, GREY, ORANGE, STYLE, WIDTH, page
from swift_hydra.run.row_map import MAP_ROWS, map_of_rows
from swift_hydra.settings import InputError

DPI = 150
USAGE_ROWS = 4000  # most rows of each class that are routed for expert usage
FEW = 20  # with fewer rows, single rows are drawn in place of a histogram


class Run(NamedTuple):
    """The data for the figures. Rows are standardised; ``y`` is 1 for anomalies."""

    y_train: np.ndarray  # (n,)
    train_score: np.ndarray  # (n,)
    Z_train: np.ndarray  # (n, d)
    y_test: np.ndarray  # (m,)
    score: np.ndarray  # (m,)
    p_test: np.ndarray  # (m,) p-values of the test rows
    Z_test: np.ndarray  # (m, d)
    generated: np.ndarray  # (s, d) generated rows, s may be 0
    log: list  # the entries of log.jsonl
    n_experts: int
    expert_usage: object  # a function from rows (n, d) to the numbers of their experts (n, k)


def require_matplotlib():
    """Import matplotlib.pyplot, set up to work without a display.

    Raises:
        InputError: matplotlib is missing or does not start.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise InputError("--plot needs matplotlib: pip install matplotlib") from None
    except ValueError as error:  # such as an unknown name in MPLBACKEND
        raise InputError(f"--plot: matplotlib does not start (see MPLBACKEND): {error}") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw_run(run, report):
    """The figures of a run and the page that shows them.

    Args:
        run: a :class:`Run`.
        report: the dict of report.json.

    Returns:
        {file name: content in bytes}: a PNG for every figure for which this run has data, and
        report.html.
    """
    plt = require_matplotlib()
    files, pictures = {}, []
    with plt.rc_context(STYLE):
        for name, draw, title, caption in FIGURES:
            figure = draw(plt, run)
            if figure is None:
                continue
            files[name] = _png(figure)
            plt.close(figure)
            pictures.append((title, caption, files[name]))
    return files | {"report.html": page(report, pictures).encode()}


def _png(figure):
    """The figure's bytes. It is laid out here: savefig would draw it once more for that."""
    figure.set_dpi(DPI)
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI)
    return image.getvalue()


def _curves(plt, run):
    y, score = run.y_test, run.score
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.1))
    false, true, _ = roc_curve(y, score)
    left.plot(false, true, color=BLUE, label="Swift Hydra")
    left.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="random order")
    left.set(
        xlabel="false positive rate",
        ylabel="true positive rate",
        title=f"ROC, area {auc(false, true):.4f}",
    )
    precision, recall, _ = precision_recall_curve(y, score)
    right.plot(recall, precision, color=BLUE, drawstyle="steps-post")
    right.axhline(np.mean(y), color=GREY, linestyle=":")
    average = average_precision_score(y, score)
    right.set(xlabel="recall", ylabel="precision", title=f"PR, average precision {average:.4f}")
    for axis in (left, right):
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), aspect="equal")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _scores(plt, run):
    """Histograms of scores, each class in percent of its own rows, so that rare ones show."""
    everything = np.concatenate([run.train_score, run.score])
    bins = np.histogram_bin_edges(everything, bins=40)
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 4.0), sharex=True)
    for axis, label, name, colour in zip(
        axes, (0, 1), ("normal", "anomaly"), (BLUE, ORANGE), strict=True
    ):
        parts = (
            (
                "train",
                run.train_score[run.y_train == label],
                {"histtype": "step", "color": "black", "ls": "--"},
            ),
            ("test", run.score[run.y_test == label], {"color": colour, "alpha": 0.6}),
        )
        for part, values, look in reversed(parts):
            text = f"{part}, {name} ({len(values):,} rows)"
            if len(values) >= FEW:
                axis.hist(
                    values,
                    bins,
                    weights=np.full(len(values), 100 / len(values)),
                    label=text,
                    **look,
                )
            else:
                height, marker = (0.1, "x") if part == "train" else (0.2, "o")
                axis.plot(
                    values,
                    np.full(len(values), height),
                    marker,
                    color=look["color"],
                    label=text,
                    clip_on=False,
                    transform=axis.get_xaxis_transform(),
                )
        axis.set(ylabel="% of these rows", ylim=(0, None))
        if max(len(values) for _, values, _ in parts) < FEW:
            axis.set(ylabel="single rows", yticks=[])
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    axes[1].set(xlabel="score (log-odds, higher is more anomalous)")
    return figure


def _alarms(plt, run):
    """Shares of test rows flagged at each stated false-alarm rate; the band is +-2 std errors."""
    n_normal = int((run.y_test == 0).sum())
    least = max(float(run.p_test.min()), 1e-4)
    stated = np.geomspace(least, 1, 60)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.1))
    error = 2 * np.sqrt(stated * (1 - stated) / n_normal)
    low, high = np.maximum(stated - error, least / 10), stated + error
    axis.fill_between(stated, low, high, color=GREY, alpha=0.3, linewidth=0, label="chance")
    axis.plot(stated, stated, color=GREY, linestyle=":")
    for label, name, look in (
        (0, "normal rows flagged", {"color": BLUE}),
        (1, "anomalies flagged", {"color": ORANGE, "linestyle": "--"}),
    ):
        values = np.sort(run.p_test[run.y_test == label])
        share = np.searchsorted(values, stated, side="right") / len(values)
        axis.plot(stated, np.maximum(share, least / 10), label=name, **look)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="stated false-alarm rate",
        ylabel="share of test rows",
        xlim=(least, 1),
        ylim=(least / 10, 1.3),
    )
    axis.legend(loc="lower right")
    return figure


def _entries(run, stage):
    return [entry for entry in run.log if entry["stage"] == stage]


def _lines(axis, at, entries, names):
    """One line per name, with the legend above the panel, where it covers no line."""
    for name, colour, style in zip(names, (BLUE, ORANGE, GREEN), ("-o", "--s", ":^"), strict=False):
        label = name.replace("_", " ").replace("kl", "KL")
        axis.plot(
            at, [entry[name] for entry in entries], style, color=colour, label=label, clip_on=False
        )
    if len(names) > 1:
        axis.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, borderaxespad=0, columnspacing=1.2
        )


def _episodes(plt, run):
    log = _entries(run, "episodes")
    if len(log) < 2:  # generators that do not learn in episodes log a single one
        return None
    panels = (
        ("mean over the candidates", ("reward", "deception")),
        ("mean over the candidates, 0 to 1", ("novelty", "coverage", "feasible")),
        ("detector loss (nats)", ("detector_loss",)),
        ("policy entropy (nats)", ("policy_entropy",)),
        ("effective rank (directions)", ("effective_rank",)),
        ("generated rows", ("accepted",)),
    )
    return _grid(
        plt,
        [
            (label, "episode", [entry["episode"] for entry in log], log, names)
            for label, names in panels
        ],
    )


def _training(plt, run):
    panels = (
        ("C-VAE (squared error; KL in nats)", "cvae", ("reconstruction", "kl")),
        ("pretrained detector (loss in nats)", "detector", ("detector_loss",)),
        ("final mixture (loss in nats)", "mixture", ("detector_loss", "balance_loss")),
        ("one-class mixture (loss in nats)", "one-class", ("detector_loss", "balance_loss")),
    )
    panels = [(label, _entries(run, stage), names) for label, stage, names in panels]
    return _grid(
        plt,
        [
            (label, "step", [entry["step"] for entry in entries], entries, names)
            for label, entries, names in panels
        ],
    )


def _held(names, entries):
    """The names that all entries hold; with one expert, for example, there is no balance loss."""
    return [name for name in names if all(name in entry for entry in entries)]


def _grid(plt, panels):
    """A figure of panels (title, x label, x, entries, names of the lines) in two columns.

    None if no entries hold any of the panels' values.
    """
    panels = [(*panel, _held(names, panel[3])) for *panel, names in panels if panel[3]]
    panels = [panel for panel in panels if panel[4]]
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(WIDTH, 2.0 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, across, at, entries, names) in zip(axes.flat, panels, strict=False):
        _lines(axis, at, entries, names)
        axis.set_title(title, pad=18 if len(names) > 1 else 6)
        axis.set_xlabel(across)
        low, high = axis.dataLim.intervaly
        if (
            low >= 0 < high and names[0] != "policy_entropy"
        ):  # the entropy of a density has no natural zero
            axis.set_ylim(0, 1.08 * high)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _experts(plt, run):
    if run.n_experts == 1:
        return None
    rng = np.random.default_rng(0)
    chosen = []
    for label in (0, 1):
        rows = run.Z_test[run.y_test == label]
        chosen.append(run.expert_usage(rows[rng.permutation(len(rows))[:USAGE_ROWS]]))
    choices = ("first choice", "second choice")[: chosen[0].shape[1]]
    if not choices:  # without known anomalies the detector has no mixture
        return None
    figure, axes = plt.subplots(1, len(choices), figsize=(WIDTH, 2.8), sharey=True, squeeze=False)
    expert = np.arange(run.n_experts)
    for rank, (axis, title) in enumerate(zip(axes[0], choices, strict=True)):
        for label, name, colour, hatch, side in (
            (0, "normal", BLUE, "", -0.2),
            (1, "anomaly", ORANGE, "///", 0.2),
        ):
            share = (
                100
                * np.bincount(chosen[label][:, rank], minlength=run.n_experts)
                / len(chosen[label])
            )
            axis.bar(
                expert + side,
                share,
                0.38,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=f"test, {name} ({len(chosen[label]):,} rows)",
            )
        axis.axhline(
            100 / run.n_experts, color="black", linestyle=":", linewidth=1, label="equal shares"
        )
        axis.set(title=title, xlabel="expert")
        if run.n_experts <= 16:
            axis.set_xticks(expert)
    axes[0, 0].set_ylabel("% of the class's rows")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


FIGURES = (
    (
        "curves.png",
        _curves,
        "ROC and precision-recall curves",
        "As the threshold falls through the test rows' scores: left, the share of anomalies "
        "found against the share of normals flagged; right, the share of flagged rows that "
        "are anomalies against the share of anomalies found.",
    ),
    (
        "scores.png",
        _scores,
        "Scores",
        "The less the normals' scores (above) and the anomalies' (below) overlap, the better;"
        " training rows (dashed) that score like test rows say that little was memorised.",
    ),
    (
        "alarms.png",
        _alarms,
        "False alarms",
        "The threshold falls from left to right: the share of normal test rows that are flagged "
        "(solid) shall be the one that was stated (dotted, with what chance allows).",
    ),
    (
        "map.png",
        map_of_rows,
        "Real and generated rows",
        f"At most {MAP_ROWS} rows of each kind: generated anomalies (plus signs) belong beside"
        " the normals, where test anomalies (crosses) may turn up; the line above says how often "
        "they come nearer to one than any known anomaly does, and how often rows that nothing "
        "learned to place do. Distances between far groups mean little in t-SNE and UMAP.",
    ),
    (
        "experts.png",
        _experts,
        "Expert usage",
        "Which expert the router puts first and second for test rows: no bar near zero in "
        "both classes means that no expert is idle, and differing bars mean that experts have"
        " specialised.",
    ),
    (
        "episodes.png",
        _episodes,
        "Episodes",
        "What the generator did in each episode: diversity counts first, deception (how well "
        "the candidates fool the detector) later; the detector's loss rises when rows join "
        "that it does not know and falls as it learns them.",
    ),
    (
        "training.png",
        _training,
        "Training losses",
        "Every 20th training step, one batch each, hence the noise: the losses should fall "
        "and level off.",
    ),
)
