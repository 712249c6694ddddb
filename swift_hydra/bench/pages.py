"""The benchmark's pages, from the records alone: the same records give the same bytes.

``results/README.md`` gets all tables; ``README.md``, ``docs/results.md`` and ``docs/speed.md`` get
those for which they have markers. ``scores.py`` computes the numbers from the records.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from swift_hydra.bench.comparison import (
    COST,
    SWIFT_HYDRA,
    area_cells,
    areas,
    best_areas,
    headline,
    left_out,
    per_dataset,
    short,
    shown_p,
    title_of,
    without_copies,
    without_scores,
)
from swift_hydra.bench.diagrams import draw_all, draw_diagrams
from swift_hydra.bench.dirty import KINDS
from swift_hydra.bench.markdown import row_of, rule_of
from swift_hydra.bench.methods import ABLATIONS, GROUPS, OURS
from swift_hydra.bench.places import (
    DIRTY,
    KEEL,
    LABELS,
    PAGES,
    POLICY,
    PUBLISHED,
    RECORDS,
    RESULTS,
    SPEED,
)
from swift_hydra.bench.policy import comparison, overview_rows, second_measures
from swift_hydra.bench.published import published_means, published_per_set, read_published
from swift_hydra.bench.records import key_of, load_records
from swift_hydra.bench.scores import FIVE_SEEDS, HEADLINES, Scores, paired
from swift_hydra.bench.side_by_side import (
    BY_LABELS,
    FIRST_SEED,
    columns_of,
    leads_table,
    means_table,
    parts_table,
    student_table,
    tables_without_copies,
)
from swift_hydra.bench.speed_tables import speed_page
from swift_hydra.data.angles import ANGLES
from swift_hydra.files import write_bytes
from swift_hydra.settings import InputError

NO_RANKING = 0.5  # AUC-ROC counted for a method that fails
# M13 with both kinds of evidence, with either one alone, and without any.
CLEANING = [SWIFT_HYDRA, *(f"{SWIFT_HYDRA}/only-{look}" for look in ("likeness", "nearness"))]
CLEANING.append(f"{SWIFT_HYDRA}/trust-normals")
TWO_SEEDS = {0, 1}  # of the ladder and other measurements with two seeds only
# Protocols for which tuned peers and slower peers were measured as well.
AT_PAR = ("weak-0.05", "weak-10")


def overview(records, methods, seeds):
    """The README's table: one row per method, the protocols side by side.

    Args:
        records: dicts.
        methods: the methods to compare.
        seeds: the seeds that count; a method that has only ``TWO_SEEDS`` is marked.

    Returns:
        Markdown lines.
    """
    protocols = {p: Scores(records, p, seeds, methods) for p in HEADLINES}
    protocols = {p: s for p, s in protocols.items() if SWIFT_HYDRA in s.complete}
    if not protocols:
        return ["No complete record of the comparison yet."]
    means, fewer = _means(records, protocols, methods)
    best = best_areas({m: v for m, v in means.items() if m not in fewer}, protocols)
    heads = [f"*{p}*, {len(s.sets)} sets" for p, s in protocols.items()]
    lines = [
        row_of("mean AUC-ROC (AUC-PR)", *heads, *COST),
        rule_of(len(protocols) + len(COST)),
    ]

    def place(method):
        values = means[method].values()
        return -np.mean([roc for roc, _ in values]) + 10 * (len(values) < 2)

    for m in sorted(means, key=place):
        row = area_cells(means[m], protocols, best)
        seeds_of_row = " (seeds 0, 1)" if m in fewer else ""
        of = [Scores(records, p, TWO_SEEDS if m in fewer else seeds, [m]) for p in means[m]]
        lines.append(row_of(f"{title_of(m)}{seeds_of_row}", *row, *_mean_cost(of, m)))
    row = []
    for scores in protocols.values():
        peer = scores.best_peer_per_set()
        row.append("" if peer is None else short(peer.mean()))
    return [*lines, row_of("*best peer of every set, chosen on test rows*", *row, "", "")]


def _mean_cost(columns, method):
    """A method's table cells of ``COST``: mean seconds, averaged over several :class:`Scores`."""
    fit, score = (
        np.mean([scores.per_cell(method, f"{what}_seconds") for scores in columns])
        for what in ("fit", "score")
    )
    return f"{fit:.1f}", f"{score:.2f}"


def _means(records, protocols, methods):
    """({method: {protocol: (AUC-ROC, AUC-PR)}}, the methods that have only two seeds)."""
    means = defaultdict(dict)
    fewer = set()
    for p, scores in protocols.items():
        for m in scores.complete:
            means[m][p] = areas(scores, m)
        part = Scores(records, p, TWO_SEEDS, methods)
        for m in set(part.complete) - set(scores.complete):
            fewer.add(m)
            means[m][p] = areas(part, m)
    return means, fewer


def ladder(records, protocol, base, methods, seeds, text):
    """A ladder: variants that differ in one part, each compared with ``base``.

    Args:
        records: dicts.
        protocol: the protocol's name.
        base: the method that the others are compared with.
        methods: all variants, including ``base``.
        seeds: the seeds that count.
        text: the heading.

    Returns:
        Markdown lines; none if there is nothing to compare.
    """
    scores = Scores(records, protocol, seeds, methods)
    if base not in scores.complete or len(scores.complete) < 2:
        return []
    reference = scores.per_set(base)
    lines = [
        f"## {text}",
        "",
        f"*{protocol}*, {len(scores.sets)} sets, seeds {', '.join(map(str, scores.seeds))}. The "
        f"difference is `{base}` minus the row ± its standard error over sets; p is Wilcoxon's, "
        "not corrected; the rank is the effective rank of the generated rows.",
        "",
        f"| method | AUC-ROC | AUC-PR | `{base}` minus it | p | wins / losses | rank "
        "| fit s | score s |",
        rule_of(8),
    ]
    for m in scores.best_first():
        compared = ("", "", "")
        if m != base:
            r = paired(reference, scores.per_set(m))
            compared = (
                f"{r.difference:+.4f} ± {r.error:.4f}",
                shown_p(r.p),
                f"{r.wins} / {r.losses}",
            )
        lines.append(
            row_of(
                m,
                f"{scores.per_set(m).mean():.4f}",
                f"{scores.per_set(m, 'auc_pr').mean():.4f}",
                *compared,
                f"{scores.rank_of_generated(m):.1f}",
                f"{scores.per_cell(m, 'fit_seconds'):.1f}",
                f"{scores.per_cell(m, 'score_seconds'):.3f}",
            )
        )
    return [*lines, "", *left_out(scores, str)]


def script_table(records):
    """Times and memory of the main script on whole tables, as Markdown lines."""
    cells = [r for r in records if r["method"] == "script"]
    if not cells:
        return []
    lines = [
        "## The main script, whole tables",
        "",
        "`python SwiftHydra.py SET --seed 0`, one process after the other; seconds are wall-clock "
        "with import and saving.",
        "",
        "| set | training rows | features | AUC-ROC | AUC-PR | seconds | peak MiB |",
        rule_of(6),
    ]
    for cell in cells:
        name = f"{cell['dataset']} ({cell['protocol']}, seed {cell['seed']})"
        if cell["failed"]:
            lines.append(row_of(name, "", "", f"failed: {cell['failed']}", "", "", ""))
            continue
        lines.append(
            row_of(
                name,
                cell["n_train"],
                cell["n_features"],
                f"{cell['auc_roc']:.4f}",
                f"{cell['auc_pr']:.4f}",
                f"{cell['wall_seconds']:.0f}",
                cell["peak_memory_mib"],
            )
        )
    return [*lines, ""]


def dirty_table(records, methods):
    """Mean AUC-ROC of every method on clean tables and on their dirty versions, as Markdown lines.

    A cell that failed counts as .5, the AUC-ROC of a random ranking.

    Args:
        records: dicts of sets that are called ``<set>-<kind>``, see ``dirty.py``.
        methods: the methods to compare.
    """
    cells = defaultdict(dict)
    for r in records:
        if r["method"] in methods:
            name, _, kind = r["dataset"].rpartition("-")
            ranked = r["auc_roc"] if r["failed"] is None else NO_RANKING
            cells[r["method"], kind][name, r["seed"]] = ranked
    kinds = [kind for kind in KINDS if (SWIFT_HYDRA, kind) in cells]
    if not kinds:
        return ["No record of it yet."]
    keys = {key for cell in cells.values() for key in cell}
    complete = [m for m in methods if all(cells[m, kind].keys() == keys for kind in kinds)]
    means = {m: [np.mean(list(cells[m, kind].values())) for kind in kinds] for m in complete}
    dirty = {m: np.mean(means[m][1:]) for m in complete}
    lines = [row_of("method", *kinds, "dirty", "dirty - clean"), rule_of(len(kinds) + 2)]
    for m in sorted(complete, key=lambda m: -dirty[m]):
        columns = (*means[m], dirty[m])
        fall = f"{dirty[m] - means[m][0]:+.4f}"
        lines.append(row_of(title_of(m), *(f"{mean:.4f}" for mean in columns), fall))
    return lines


def _rungs(preset):
    return [m for m in GROUPS["ladder"] if m.startswith(f"{preset}/")]


def _with_ablations(preset):
    return [f"{preset}/rl", *(f"{preset}/rl/{ablation}" for ablation in ABLATIONS)]


def sections(records):
    """The content of all pages.

    Args:
        records: dicts.

    Returns:
        The lines of ``results/README.md``, and {marker: lines} for the other pages.
    """
    compared = [*OURS, *GROUPS["peers"], *GROUPS["foundation"]]
    latest = measured_again(records)
    lines = [
        "# Measured results",
        "",
        "Written by `python benchmark.py --report` from `results/records` and, where a cell was "
        "measured again, `results/labels`. The ladders and ablations are of older commits than the "
        "headline tables: before M13 and the robust scale of columns; every record names its own.",
        "",
    ]
    headlines = [Scores(latest, protocol, FIVE_SEEDS, compared) for protocol in HEADLINES]
    for scores in headlines:
        lines += headline(scores) + without_copies(scores)
    for preset in ("paper", "full"):
        for subject, methods in (
            ("Where generated anomalies come from", _rungs(preset)),
            ("What each part gives", _with_ablations(preset)),
        ):
            for protocol in ("unseen", "seen"):
                text = f"{subject}, preset {preset}, {protocol}"
                lines += ladder(records, protocol, f"{preset}/rl", methods, TWO_SEEDS, text)
    lines += script_table(records)
    for scores in headlines:
        lines += per_dataset(scores)
    asked = load_records(POLICY)
    tables = {"overview": overview(latest, compared, FIVE_SEEDS)}
    tables["overview"] += overview_rows(asked, HEADLINES)
    for name, methods in (("generators", _rungs("paper")), ("parts", _with_ablations("paper"))):
        rungs = ladder(records, "unseen", "paper/rl", methods, TWO_SEEDS, "")
        tables[name] = _rows_alone(rungs)
    tables["speed"] = speed_page(SPEED)[:-1]
    without, beside = _side_by_side(latest)
    lines += without
    tables |= beside
    for protocol in AT_PAR:
        methods = [SWIFT_HYDRA, *GROUPS["weak-peers"], *GROUPS["tuned"]]
        against = headline(Scores(latest, protocol, TWO_SEEDS, methods))
        first = next((i for i, line in enumerate(against) if line.startswith("|")), 0)
        tables[f"at-par-{protocol}"] = against[first:-1] or ["No complete record of it yet."]
        lines += against
    tables |= {"student": student_table(latest), "full-parts": parts_table(latest)}
    for name, protocol in (("cleaning", "weak-0.05"), ("cleaning-clean", "few")):
        rungs = ladder(latest, protocol, SWIFT_HYDRA, CLEANING, FIRST_SEED, "")
        tables[name] = _rows_alone(rungs)
    tables |= {"policy": comparison(asked), "policy-beside": second_measures(asked)}
    tables["dirty"] = dirty_table(load_records(DIRTY), compared)
    others = read_published(PUBLISHED)
    tables["published"] = published_means(latest, others)
    lines += published_per_set(latest, others)
    return lines, tables


def _side_by_side(records):
    """The tables with a column per protocol: lines of those without copies, and {marker: lines}."""
    methods = [*OURS, "full/rl/trust-normals", *GROUPS["weak-peers"], *GROUPS["one-class-peers"]]
    methods = list(dict.fromkeys(methods))
    members = [each for ours in OURS for each in (ours, f"{ours}/three-members")]
    defaults = [m.removesuffix("-tuned") for m in GROUPS["tuned"]]
    tuned = [SWIFT_HYDRA, *GROUPS["tuned"], *defaults, *GROUPS["tabular"]]
    first = [record for record in records if record["seed"] in FIRST_SEED]
    lines, tables = [], {}
    for name, found, which, protocols in (
        ("labels", records, methods, BY_LABELS),
        ("angles", records, methods, ANGLES),
        ("tuned", first, tuned, HEADLINES),
        ("members", records, members, HEADLINES),
        ("keel", load_records(KEEL), methods, (*HEADLINES, *AT_PAR, "weak-0", "one-class")),
    ):
        columns = columns_of(found, which, protocols)
        tables[name] = means_table(found, which, columns)
        if any("/" not in method for method in which):  # a peer
            tables[f"{name}-leads"] = leads_table(columns)
        if found is records and which is methods:  # KEEL may have other sets of the same names
            lines += tables_without_copies(columns)
    return lines, tables


def _rows_alone(lines):
    """A table without the text around it, or a line that says that there are no records."""
    rows = [line for line in lines if line.startswith("|")]
    return rows or ["No complete record of it yet."]


def measured_again(records):
    """The records, with those in ``LABELS`` replacing older ones of the same cell."""
    cells = {key_of(record): record for record in [*records, *load_records(LABELS)]}
    return list(cells.values())


def filled(text, tables):
    """``text`` with the lines between ``<!-- name -->`` and ``<!-- /name -->`` replaced."""
    for name, lines in tables.items():
        start = f"<!-- {name} -->"
        end = f"<!-- /{name} -->"
        if start in text and end in text:
            head, rest = text.split(start, 1)
            text = head + start + "\n" + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1]
    return text


def write_report(records, figures=False):
    """Write all tables: those of the project's records to its pages, others beside the records.

    Args:
        records: folder of the records.
        figures: draw the critical-difference diagrams too.

    Returns:
        The paths written.

    Raises:
        InputError: the folder holds no record, or a page there is not this command's.
    """
    place = records
    records = load_records(place)
    if not records:
        raise InputError(f"{place}: holds no record: give the folder of a sweep's records")
    if Path(place).resolve() != RECORDS.resolve():
        return _write_own(place, records, figures)
    lines, tables = sections(records)
    written = [RESULTS / "README.md"]
    write_bytes(written[0], ("\n".join(lines).rstrip() + "\n").encode())
    for page in PAGES:
        if page.is_file():
            write_bytes(page, filled(page.read_text("utf-8"), tables).encode())
            written.append(page)
    return written + (draw_diagrams(measured_again(records), SWIFT_HYDRA) if figures else [])


def _write_own(place, records, figures):
    """Write the page and the figures of records that are not the project's into their folder."""
    start = ["# Measured results", "", "Written by `python benchmark.py --report --records DIR`."]
    lines = list(start)
    found = {}
    for protocol in sorted({record["protocol"] for record in records}):
        scores = Scores(records, protocol)
        if not scores.complete:
            lines += ["", f"## {protocol}: no method has all cells", "", *_cells_missing(scores)]
            continue
        found[protocol] = scores
        reference = SWIFT_HYDRA if SWIFT_HYDRA in scores.complete else scores.best_first()[0]
        lines += ["", *headline(scores, reference), *per_dataset(scores, reference)]
    lines += ["", *without_scores(records)]
    page = Path(place) / "README.md"
    if page.is_file() and not page.read_bytes().startswith("\n".join(start).encode()):
        raise InputError(f"{page}: is no page of this command: give another --records")
    write_bytes(page, ("\n".join(lines).rstrip() + "\n").encode())
    return [page, *(draw_all(found, place) if figures else [])]


def _cells_missing(scores):
    """A table of the cells that each method lacks, as Markdown lines."""
    lines = [row_of("method", "cells", "failed", "lacks, among others"), rule_of(3)]
    for method, (n_cells, n_failed) in sorted(scores.incomplete.items()):
        lacks = next(key for key in scores.keys if key not in scores.cells[method])
        lines.append(row_of(title_of(method), n_cells, n_failed, f"{lacks[0]}, seed {lacks[1]}"))
    return lines
