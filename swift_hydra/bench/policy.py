"""The tables of the study planned in ``results/POLICY.md``: is a learned generator worthwhile?"""

from swift_hydra.bench.comparison import short, shown_p
from swift_hydra.bench.markdown import row_of, rule_of
from swift_hydra.bench.scores import Scores, holm, paired, source_of

LEARNERS = {"rl": "policy, on the table", "shared": "proposal, across tables"}
CONTROLS = ("search", "boundary", "noise")
HALVES = {"paper/shared-even": "paper/shared", "paper/shared-odd": "paper/shared"}
STUDENTS = ("full/rl/fast", "full/noise/fast", "full/none/fast")
LEVEL = 0.02  # two methods are level if the interval of their difference is within +- this
NOTHING = ["No complete record of it yet."]


def _scores_of_arms(records):
    """The :class:`bench.scores.Scores` of all generators; None if one of them lacks cells."""
    # Both halves of the shared proposal are one method.
    arms = [r | {"method": HALVES.get(r["method"], r["method"])} for r in records]
    names = [f"paper/{name}" for name in (*LEARNERS, *CONTROLS)]
    scores = Scores(arms, "unseen", methods=names)
    return scores if len(scores.complete) == len(names) else None


def outcome(r, p):
    """The outcome of a comparison by the plan's rule: "ahead", "behind", "level" or "open".

    Args:
        r: a :class:`bench.scores.Paired`.
        p: its corrected p-value.
    """
    if p < 0.05:
        return "ahead" if r.difference > 0 else "behind"
    return "level" if -LEVEL < r.low and r.high < LEVEL else "open"


def comparison(records):
    """The six comparisons of AUC-ROC, the plan's main measure, as Markdown lines."""
    scores = _scores_of_arms(records)
    if scores is None:
        return NOTHING
    area = {name: scores.per_set(f"paper/{name}") for name in (*LEARNERS, *CONTROLS)}
    pairs = [(a, b) for a in LEARNERS for b in CONTROLS]
    sources = list(map(source_of, scores.sets))
    results = [paired(area[a], area[b], sources) for a, b in pairs]
    adjusted = holm([r.p for r in results])
    lines = [
        row_of(
            f"AUC-ROC, {len(scores.sets)} sets, seeds {', '.join(map(str, scores.seeds))}",
            *(f"{name} ({area[name].mean():.4f})" for name in CONTROLS),
        ),
        rule_of(len(CONTROLS)),
    ]
    for number, (name, title) in enumerate(LEARNERS.items()):
        row = slice(number * len(CONTROLS), (number + 1) * len(CONTROLS))
        cells = [
            f"{r.difference:+.4f} ({r.low:+.4f} to {r.high:+.4f}), p {shown_p(p)}: {outcome(r, p)}"
            for r, p in zip(results[row], adjusted[row], strict=True)
        ]
        lines.append(row_of(f"{name}, {title} ({area[name].mean():.4f})", *cells))
    return lines


def overview_rows(records, protocols):
    """The README's row on learned generators: policy, shared proposal and filtered noise."""
    scores = _scores_of_arms(records)
    if scores is None:
        return []
    of = [short(scores.per_set(f"paper/{name}").mean()) for name in ("rl", "shared", "noise")]
    seeds = f"seeds {scores.seeds[0]} to {scores.seeds[-1]}"
    title = f"*`paper`, {seeds}: rows of the policy / a proposal learned on other sets / noise*"
    return [row_of(title, *(" / ".join(of) if p == "unseen" else "" for p in protocols), "", "")]


def second_measures(records):
    """The plan's secondary measures, as Markdown lines."""
    arms = _scores_of_arms(records)
    students = Scores(records, "unseen", methods=STUDENTS)
    if arms is None or len(students.complete) < len(STUDENTS):
        return NOTHING
    lines = [
        row_of("", "AUC-ROC", "AUC-PR", "nearer to a generated row", "rank correlation"),
        rule_of(4),
    ]
    for scores in (arms, students):
        for m in scores.best_first():
            near = scores.per_cell_or_none(m, "nearer_to_generated")
            rank = scores.per_cell_or_none(m, "rank_correlation")
            areas = [scores.per_set(m, name).mean() for name in ("auc_roc", "auc_pr")]
            shown = ["" if value is None else f"{value:.3f}" for value in (near, rank)]
            lines.append(row_of(m, *(f"{a:.4f}" for a in areas), *shown))
    return lines
