"""A run of ``SwiftHydra.py``: train, test and write, or complete what a finished run lacks."""

from dataclasses import fields
from typing import NamedTuple

import numpy as np

from swift_hydra.data.columns import ColumnSettings
from swift_hydra.exported import Exported, onnx_bytes
from swift_hydra.files import KIND, load_checkpoint
from swift_hydra.journal import Journal, Progress
from swift_hydra.pretrain import reuse_or_pretrain
from swift_hydra.run import report as run_report
from swift_hydra.run.record import write_tensorboard
from swift_hydra.run.resume import Store, check_ranking, finished_run, remove_own
from swift_hydra.scan.backends import choose_backend
from swift_hydra.settings import (
    DEBUG,
    InputError,
    changed,
    flag_values,
    listed,
    one_line,
    printable,
    resolve_device,
    tell,
    want_of_memory,
)

# Settings that leave a checkpoint's scores what they are: where networks train, what is refused.
OF_NO_SCORE = ("device", "mamba", "majority_anomalies")


def evaluate(path, rows, which, asked):
    """Print the result of a checkpoint on the test rows of the split it was trained on.

    Args:
        path: the checkpoint.
        rows: a :class:`dataloader.Rows`.
        which: their :class:`dataloader.RowOptions`.
        asked: the estimator of the command; a warning names its settings that are not the default
            and not the checkpoint's, as they are without effect.

    Raises:
        InputError: the checkpoint is unusable or was trained on other rows or columns.
    """
    saved = load_checkpoint(path, KIND)
    detector = type(asked).from_checkpoint(saved, path)
    if saved.get("fingerprint") != rows.train.fingerprint:
        if saved.get("fingerprint") is None:
            raise InputError(
                f"{path}: was written by save(), which does not say what it was trained on: score "
                "rows with it, python SwiftHydra.py score"
            )
        others = _other_columns(detector, rows)
        if others:
            raise InputError(f"{path}: was trained with {others}: give the same flags")
        raise InputError(
            f"{path}: was trained on other rows than {rows.data.name}, {which.protocol_name}, seed "
            f"{which.seed}: give the dataset, protocol and seed it was trained on"
        )
    given = changed(asked, [name for name in flag_values(asked) if name not in OF_NO_SCORE])
    told = [(name, detector.settings_.get(name, value), value) for name, value in given]
    other = [f"{name}={own!r}, not {value!r}" for name, own, value in told if own != value]
    if other:
        tell(f"{path}: was trained with {', '.join(other)}: it scores as it was trained")
    print(run_report.result_line(rows.y_test, detector.score_prepared(rows.X_test)))


def _other_columns(detector, rows):
    """How column settings, names and reading of a checkpoint differ from these rows', as a text."""
    given = [getattr(rows.data.settings, field.name) for field in fields(ColumnSettings)]
    pairs = zip(fields(ColumnSettings), given, strict=True)
    told = [(f.name, detector.settings_.get(f.name, value), value) for f, value in pairs]
    own, here = detector.columns_, rows.train.columns
    read, now = (columns.preparation.reading or {} for columns in (own, here))
    told += [(name, value, now.get(name, value)) for name, value in read.items()]
    words = [f"{name}={value!r}, not {new!r}" for name, value, new in told if value != new]
    left = [name for name in own.names if name not in here.names]
    more = [name for name in here.names if name not in own.names]
    words += [f"the column {listed(map(repr, left))}"] * bool(left)
    words += [f"no column {listed(map(repr, more))}"] * bool(more)
    return "; ".join(words)


class Work(NamedTuple):
    """How a run shows its progress and how often it stores it."""

    progress: Progress
    pace: tuple  # see run.resume.Store


def run(folder, rows, detector, which, options, work):
    """Train, score the test rows, write the run's files and print the result line."""
    say = work.progress.say
    settings = {
        "seed": which.seed,
        "columns_fingerprint": rows.train.columns.fingerprint,
        **flag_values(detector),
    }
    path = folder.path / "resume.pt"
    fingerprint = rows.train.fingerprint
    if options.resume:
        finished = finished_run(folder, fingerprint, settings, rows.split is None)
        if finished is not None:
            checkpoint = (finished.checkpoint, folder.path / "checkpoint.pt")
            remove_own(path, fingerprint, settings)
            _show(folder, rows, finished, options, type(detector).from_checkpoint(*checkpoint), say)
            return
    store = Store(path, fingerprint, settings, options.resume, say, work.pace)
    journal = Journal(work.progress, store)
    device = resolve_device(detector.device)
    backend = choose_backend(detector.mamba, device)
    config = flag_values(which, detector, options)
    shown = config | {"device": device, "mamba": backend}
    say(" ".join(f"{name}={value}" for name, value in shown.items() if value is not None))
    report = run_report.report_of_start(rows, which, config, store.resumed_after)

    def pretrained(learned):
        rest = which.seed, detector, options, journal, work.pace
        return reuse_or_pretrain(folder, rows.train, learned, *rest)

    try:
        detector.fit(rows.train, pretrained=pretrained, journal=journal)
        if rows.split is not None:  # a frame to score may still have the label column
            detector.label_name_ = rows.data.label
        with journal.stage("score"):
            score = detector.score_prepared(rows.X_test) if rows.split else np.empty(0)
    except InputError:  # the user's mistake, not a failure of the run
        raise
    except Exception as error:
        reason = _reason(error)
        folder.write_results(report | {"failed": one_line(reason)}, [], None, None)
        store.clear()
        raise InputError(
            f"{rows.data.name}: the run failed and was recorded as failed: {reason}: {DEBUG} shows "
            "where"
        ) from error
    report |= run_report.report_of_end(detector, rows, score, device, backend, journal.seconds)
    lost = _write(folder, rows, detector, score, journal.log, report, options)
    store.clear()
    run_report.say_what_was_done(folder, detector, options, rows.train.y, say)
    if rows.split is None:
        print(printable(run_report.ranking_line(detector, folder.path)))
    else:
        print(run_report.result_line(rows.y_test, score))
    _refuse_lost(folder, lost)


def _show(folder, rows, finished, options, detector, say):
    """Print the result of a finished run, after adding requested files that it lacks."""
    ranking = folder.path / "scores.csv"
    if rows.split is None:
        check_ranking(ranking, run_report.ranking(detector))
    lost = _add_what_is_asked(folder, rows, finished, options, detector)
    say(f"nothing is left to do: {folder.path} is done")
    if rows.split is None:
        print(printable(ranking))
    else:
        print(run_report.result_line(finished.y_test, finished.score))
    _refuse_lost(folder, lost)


def _refuse_lost(folder, lost):
    """Raise the error, if any, that kept optional files from being made; the rest is on disk."""
    if lost is not None:
        # An InputError would occur again, and its own text names the remedy.
        again = not isinstance(lost, InputError)
        more = f": --resume tries it again, {DEBUG} shows where it failed" if again else ""
        raise InputError(
            f"{folder.path}: the results are written, but not what --plot or --export adds "
            f"({_reason(lost)}){more}"
        ) from lost


def _reason(error):
    """The text of an error in a report, without its type if the text names the cause."""
    named = isinstance(error, (FloatingPointError, InputError))
    return want_of_memory(error) or (str(error) if named else f"{type(error).__name__}: {error}")


def _add_what_is_asked(folder, rows, finished, options, detector):
    """Add requested figures and the exported student to a finished run without whole ones.

    Returns the first error, or None.
    """
    plot = options.plot and not folder.has_figures()
    export = options.export and not Exported.is_whole(folder.path / "student.onnx")
    if not (plot or export):
        return None
    about = (detector, rows, finished.score, finished.log, finished.report)
    figures, lost = _extras(*about, options)
    folder.add(figures)
    return lost


def _extras(detector, rows, score, log, report, options):
    """Optional files as {file name: bytes}, and the first error in making them, or None."""
    made, lost = {}, None
    wanted = [
        (options.plot, lambda: run_report.figures_of(detector, rows, score, log, report)),
        (options.export, lambda: {"student.onnx": onnx_bytes(detector)}),
    ]
    for asked, make in wanted:
        try:
            made |= make() if asked else {}
        except Exception as error:
            lost = lost or error
    return made, lost


def _write(folder, rows, detector, score, log, report, options):
    """Write all files of a run; returns the first error in making optional ones, or None."""
    figures, lost = _extras(detector, rows, score, log, report, options)
    checkpoint = detector.checkpoint(rows.train.fingerprint)
    if rows.split is None:
        figures["scores.csv"] = run_report.ranking(detector)
    folder.write_results(report, log, run_report.arrays_of(rows, score), checkpoint, figures)
    write_tensorboard(folder.path / "tensorboard", log)
    return lost
