"""The content of a finished run's files: report.json, scores.npz, scores.csv and the figures."""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from swift_hydra.run.figures import Run, draw_run
from swift_hydra.run.folder import RANKING
from swift_hydra.run.record import environment_report, peak_memory_mib


def result_line(y, score):
    """The last line that a run with labels prints."""
    areas = measures(y, score)
    return f"AUC-ROC {areas['auc_roc']:.4f}  AUC-PR {areas['auc_pr']:.4f}"


def measures(y, score):
    """AUC-ROC and AUC-PR of the scores (m,) of test rows, for report.json; None without rows."""
    if not len(y):
        return {"auc_roc": None, "auc_pr": None}
    return {
        "auc_roc": float(roc_auc_score(y, score)),
        "auc_pr": float(average_precision_score(y, score)),
    }


def ranking(detector):
    """scores.csv of a run without labels, as bytes: one line per training row.

    A line holds the left-out score (for a recurring row, the score that a copy of it gets), the
    p-value (see ``p_values``), the rank (1 is the most anomalous), and 1 above the threshold.
    """
    scores = detector.fresh_scores_  # threshold and p-values are based on these
    p = detector.p_values_of(scores)
    rank = rankdata(-scores, method="ordinal").astype(np.int64)
    lines = [RANKING]
    columns = (scores.tolist(), p.tolist(), rank.tolist(), detector.labels_.tolist())
    for row, (score, value, place, flag) in enumerate(zip(*columns, strict=True)):
        lines.append(f"{row},{score:.9g},{value:.6g},{place},{flag}")
    return ("\n".join(lines) + "\n").encode()


def ranking_line(detector, path):
    """The last line that a run without labels prints."""
    asked = f"contamination {detector.contamination}"
    if detector.false_alarms is not None:
        asked = f"false alarms {detector.false_alarms}"
    return (
        f"{int(detector.labels_.sum())} of {len(detector.labels_)} rows above the threshold "
        f"({asked}); how many are anomalies is not known ({detector.estimated_contamination_:.2g} "
        f"assumed); ranked in {path / 'scores.csv'}"
    )


def report_of_start(rows, which, config, resumed_after):
    """The entries of report.json that are known before the work.

    Args:
        rows: a :class:`dataloader.Rows`.
        which: their :class:`dataloader.RowOptions`.
        config: {flag: value} of the command.
        resumed_after: the last stage that ``--resume`` took over, or None.
    """
    y = rows.train.y
    y_test = rows.y_test
    return {
        "dataset": rows.data.name,
        "protocol": which.protocol_name,
        "seed": which.seed,
        "config": config,
        **rows.fingerprints,
        "columns_fingerprint": rows.train.columns.fingerprint,
        "resumed_after": resumed_after,
        **environment_report(),
        "n_train": len(y),
        "n_train_anomalies": int((y == 1).sum()),
        "n_groups": rows.train.n_subjects,
        "n_hidden": rows.n_hidden,
        "n_test": len(y_test),
        "n_test_anomalies": int(y_test.sum()),
        "n_features": len(rows.data.columns),
    }


def report_of_end(detector, rows, score, device, backend, seconds):
    """The further entries of report.json for a run that did not fail.

    Args:
        detector: the fitted estimator.
        rows: a :class:`dataloader.Rows`.
        score: (m,) scores of the test rows.
        device: the device on which the mixture ran.
        backend: the Mamba backend.
        seconds: {stage: seconds}.
    """
    return {
        "device": str(device),
        "mamba_backend": backend,
        "n_experts": detector.n_experts_,
        "effective_rank": round(detector.effective_rank_, 2),
        "n_synthetic": len(detector.synthetic_),
        "n_set_aside": detector.n_set_aside,
        "n_sampled": int(detector.sampled_.sum()),
        "estimated_contamination": round(detector.estimated_contamination_, 4),
        "weight_of_unlike": _weight_of_unlike(detector),
        "student": _of_student(detector),
        "threshold": detector.threshold_ if np.isfinite(detector.threshold_) else None,
        **measures(rows.y_test, score),
        "seconds": seconds,
        "peak_memory_mib": peak_memory_mib(),
        "failed": None,
    }


def arrays_of(rows, score):
    """The content of scores.npz."""
    if rows.split is None:
        return {"y_test": rows.y_test, "score": score}
    return {
        "y_test": rows.y_test,
        "score": score,
        "test_index": rows.split.test,
        "train_index": rows.split.train,
    }


def _weight_of_unlike(detector):
    """The weight chosen for ``unlike_weight``; None if the detector does not combine two parts."""
    combiner = getattr(detector.detector_, "combiner", None)
    if combiner is None or combiner.known is None:
        return None
    return round(float(combiner.weight), 4)


def _of_student(detector):
    if detector.student_ is None:
        return None
    return detector.student_.agreement | {"verified_share": detector.verified_share}


def figures_of(detector, rows, score, log, report):
    """The figures of a run: {file name: bytes}.

    Args:
        detector: the fitted estimator.
        rows: a :class:`dataloader.Rows`.
        score: (m,) scores of the test rows.
        log: the entries of log.jsonl.
        report: the complete report.
    """
    columns = detector.columns_
    run = Run(
        y_train=np.maximum(rows.train.y, 0),
        train_score=detector.decision_scores_,
        Z_train=rows.train.Z,
        y_test=rows.y_test,
        score=score,
        p_test=detector.p_values_of(score),
        Z_test=columns.standardise(rows.X_test),
        generated=columns.standardise(detector.synthetic_),
        log=log,
        n_experts=detector.n_experts_,
        expert_usage=detector.detector_.expert_usage,
    )
    return draw_run(run, report)


def say_what_was_done(folder, detector, options, y, say):
    """Print a finished run's lines before its result: figures, rows set aside, times, folder.

    ``y``: (n,) labels of the training rows.
    """
    if options.plot and (folder.path / "report.html").exists():
        say(f"figures: {folder.path / 'report.html'}")
    n_sampled = int(detector.sampled_.sum())
    if n_sampled < len(detector.sampled_):
        say(
            f"{n_sampled} rows, drawn from {len(detector.sampled_)}, stand for the training rows: "
            "--max-samples"
        )
    n_aside = detector.n_set_aside
    if n_aside and not detector.trust_normals:
        # Where no row has a label, the flag would be refused.
        trust = ": --trust-normals takes rows labelled 0 for normal" if (y == 0).any() else ""
        say(
            f"{n_aside} of {n_sampled} training rows were not learned from, they look "
            f"like anomalies{trust}"
        )
    seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in detector.seconds_.items())
    experts = f", {detector.n_experts_} experts" if _has_experts(detector.detector_) else ""
    say(
        f"{len(detector.synthetic_)} anomalies generated ({detector.generator}){experts}; "
        f"seconds: {seconds}; written to {folder.path}"
    )


def _has_experts(detector):
    """Does a detector have a mixture with the number of experts that the report states?"""
    return getattr(detector, "known", detector) is not None
