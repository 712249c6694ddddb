"""Critical-difference diagrams (Demsar 2006) of the benchmark.

Mean ranks over the sets; a bar joins methods that Wilcoxon-Holm cannot part.
"""

from swift_hydra.bench.methods import GROUPS, OURS
from swift_hydra.bench.places import RESULTS
from swift_hydra.bench.scores import FIVE_SEEDS, PUBLISHED, Scores
from swift_hydra.settings import InputError


def draw_diagrams(records, needed):
    """Draw one diagram per protocol into ``results``.

    Args:
        records: dicts.
        needed: a protocol is left out where this method has no complete record.

    Returns:
        The paths written.

    Raises:
        InputError: if a package is missing.
    """
    try:
        import matplotlib
        import pandas
        import scikit_posthocs
    except ImportError as error:
        raise InputError(
            f"figures need the package {error.name}: pip install {error.name.replace('_', '-')}"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    written = []
    for protocol in PUBLISHED:
        scores = Scores(records, protocol, FIVE_SEEDS, [*OURS, *GROUPS["peers"]])
        if needed not in scores.complete:
            continue
        table = pandas.DataFrame({m: scores.per_set(m) for m in scores.complete}, index=scores.sets)
        long = table.reset_index(names="set").melt(
            id_vars="set", var_name="method", value_name="auc"
        )
        p = scikit_posthocs.posthoc_wilcoxon(
            long, "auc", "method", p_adjust="holm", zero_method="zsplit"
        )
        plt.figure(figsize=(9, 3.2))
        scikit_posthocs.critical_difference_diagram(table.rank(axis=1, ascending=False).mean(), p)
        plt.title(f"mean rank on {protocol}, {len(scores.sets)} sets (1 is best)")
        path = RESULTS / f"critical-difference-{protocol}.png"
        plt.savefig(path, dpi=120, bbox_inches="tight")
        plt.close()
        written.append(path)
    return written
