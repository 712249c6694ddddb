"""Critical-difference diagrams (Demsar 2006) of the benchmark.

They show mean ranks over the sets; a bar joins methods that do not differ significantly by
Wilcoxon's test with Holm's correction.
"""

import re
from pathlib import Path

import numpy as np

from swift_hydra.bench.comparison import mean_ranks
from swift_hydra.bench.methods import GROUPS, OURS
from swift_hydra.bench.places import RESULTS
from swift_hydra.bench.scores import FIVE_SEEDS, HEADLINES, Scores, holm, paired
from swift_hydra.settings import InputError

INCHES = 0.24  # height of a line of the diagram, with space around its label
WIDTH = 9.0
DOTS = 120  # per inch


def draw_diagrams(records, needed):
    """Draw one diagram per protocol of the published comparison into ``results``.

    Args:
        records: dicts.
        needed: a protocol is left out if this method lacks cells.

    Returns:
        The paths written.

    Raises:
        InputError: a package is missing.
    """
    methods = [*OURS, *GROUPS["peers"]]
    found = [Scores(records, protocol, FIVE_SEEDS, methods) for protocol in HEADLINES]
    found = dict(zip(HEADLINES, found, strict=True))
    return draw_all({p: s for p, s in found.items() if needed in s.complete}, RESULTS)


def draw_all(found, folder):
    """Draw the diagrams of {protocol: :class:`scores.Scores`} into a folder.

    A protocol with fewer than two complete methods or two sets has none.

    Returns:
        The paths written.

    Raises:
        InputError: if a package is missing.
    """
    written = []
    for protocol, scores in found.items():
        if len(scores.complete) < 2 or len(scores.sets) < 2:
            continue
        figure = diagram(scores, f"mean rank on {protocol}, {len(scores.sets)} sets (1 is best)")
        path = Path(folder) / f"critical-difference-{protocol}.png"
        figure.savefig(path, dpi=DOTS, bbox_inches="tight")
        written.append(path)
    return written


def diagram(scores, title):
    """The diagram of a :class:`scores.Scores`, as high as its labels and bars need.

    Returns:
        A matplotlib Figure.

    Raises:
        InputError: a package is missing.
    """
    try:
        import pandas
        import scikit_posthocs
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            f"figures need the package {error.name}: pip install {error.name.replace('_', '-')}"
        ) from None
    # Methods as numbers: the package uses sets, in which the order of texts varies with the
    # process.
    values = np.stack([scores.per_set(method) for method in scores.complete])
    p = pandas.DataFrame(_parted(values))
    of_each = mean_ranks(scores)
    ranks = pandas.Series([of_each[method] for method in scores.complete])
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    # Distance of the labels from the ends of their lines, as a share of the ranks' range.
    margin = 0.02 * max(float(ranks.max() - ranks.min()), 0.5)
    drawn = scikit_posthocs.critical_difference_diagram(
        ranks,
        p,
        ax=axes,
        text_h_margin=margin,
        label_fmt_left="{label} ({rank:.1f})",
        label_fmt_right="({rank:.1f}) {label}",
    )
    for label in drawn["labels"]:
        number = re.search(r"^\d+(?= \()|(?<=\) )\d+$", label.get_text())
        start, end = number.span()
        text = label.get_text()
        label.set_text(text[:start] + scores.complete[int(number[0])] + text[end:])
        toward = -1 if label.get_ha() == "right" else 1
        label.set_x(label.get_position()[0] + toward * margin)
    lowest = min(label.get_position()[1] for label in drawn["labels"])
    axes.set_ylim(lowest - 0.5, 0.5)
    figure.set_size_inches(WIDTH, INCHES * (1.0 - lowest))
    axes.set_title(title, pad=24)
    return figure


def _parted(values):
    """p-values (k, k) of all pairs of k methods, from values (k, n_sets), Holm-corrected."""
    p = np.ones((len(values), len(values)))
    pairs = np.triu_indices(len(values), 1)
    p[pairs] = holm([paired(values[i], values[j]).p for i, j in zip(*pairs, strict=True)])
    return np.minimum(p, p.T)
