"""The finished stages of an interrupted run, for ``--resume``: one file in its folder.

A stage is fully determined by rows, settings and seed. An entry with the same rows and settings can
therefore replace the computation of its stage, whatever other entries the file holds. The file is
removed when the run is done.
"""

import copy
import json
import math
import time
from typing import NamedTuple

import numpy as np

from swift_hydra.data.learned_columns import Columns
from swift_hydra.files import KIND, content_of, load_checkpoint, remove, write_torch
from swift_hydra.journal import LARGEST, are_numbers
from swift_hydra.run.page import page
from swift_hydra.run.report import measures
from swift_hydra.settings import InputError, tell
from swift_hydra.snapshot import to_arrays

ANEW = "run without --resume"
REMEDY = f"delete it or {ANEW}"


class Pace(NamedTuple):
    """How often a run writes its state.

    Attributes:
        between: least seconds from one write to the next, at the end of a stage.
        within: least seconds from one write to the next, within a long stage.
        share: largest share of the run's time for writing: a slow disk is written to less often.
    """

    between: float = 2.0
    within: float = 20.0
    share: float = 0.03


PACE = Pace()


class Store:
    """Finished stages of one run, see :class:`journal.Journal`.

    Args:
        path: the file.
        rows: fingerprint of the training rows.
        settings: dict of everything else that determines the result.
        resume: use the entries of an existing file; otherwise the run starts anew, and its first
            write replaces the file.
        say: a function that prints a line.
        pace: a :class:`Pace`.

    Raises:
        InputError: at the path is not a file, or, with ``resume``, the file is damaged or was left
            by a run on other rows or settings.
    """

    def __init__(self, path, rows, settings, resume, say, pace=PACE):
        self.path = path
        self.stamp = {"kind": "resume", "fingerprint": rows, "settings": settings}
        self.pace = pace
        self.entries = {}
        self.resumed_after = None
        self.written = time.monotonic()
        self.took = 0.0
        if not path.exists():
            return
        if not path.is_file():
            raise InputError(
                f"{path}: is no ordinary file: take it away, a run keeps its state there"
            )
        if not resume:
            say(f"{path} of a run that was cut off will be replaced: --resume would go on from it")
            return
        saved = load_checkpoint(path, "resume", REMEDY)
        with self.content():
            kinds = {"fingerprint": str, "settings": dict, "entries": dict, "last": str}
            wrong = [name for name, kind in kinds.items() if not isinstance(saved[name], kind)]
            entries = [] if "entries" in wrong else saved["entries"].values()
            if wrong or not entries or not all(isinstance(entry, dict) for entry in entries):
                raise TypeError(f"{', '.join(wrong) or 'entries'} of another type")
            other = [
                f"{name}={value!r} (now {settings.get(name)!r})"
                for name, value in saved["settings"].items()
                if settings.get(name) != value
            ]
        if saved["fingerprint"] != rows:
            raise InputError(
                f"{path}: was left by a run on other rows: give the dataset it was started with, "
                "or run without --resume to start anew"
            )
        if other:
            raise InputError(
                f"{path}: was left by a run with {', '.join(other)}: give the same, or run without "
                "--resume to start anew"
            )
        self.entries = saved["entries"]
        self.resumed_after = saved["last"]
        say(f"resuming after {self.resumed_after}")

    def content(self):
        """A context in which stored content is restored, so that errors name the file."""
        return content_of(self.path, REMEDY)

    def get(self, stage):
        """A copy of what :meth:`put` last stored for a stage, or None."""
        return copy.deepcopy(self.entries.get(stage))

    def put(self, stage, content, n_done, n_steps):
        """Store ``content`` (tensors and plain values) of a stage after a step.

        The file is written only if :class:`Pace` allows it.
        """
        self.entries[stage] = copy.deepcopy(content)  # networks continue to learn in place
        last = f"{stage} {n_done}/{n_steps}"
        if self._pause() >= max(self.pace.between, self.took / self.pace.share):
            start = time.monotonic()
            try:
                write_torch(self.path, {**self.stamp, "last": last, "entries": self.entries})
            except InputError as error:
                raise InputError(
                    f"{error}; --resume then goes on from the last stage that was written"
                ) from None
            self.written = time.monotonic()
            self.took = self.written - start

    def due(self):
        """Is it time to write within a long stage?"""
        return self._pause() >= max(self.pace.within, self.took / self.pace.share)

    def _pause(self):
        return time.monotonic() - self.written

    def clear(self):
        """Remove the file at the end of the run."""
        self.entries = {}
        remove(self.path)


def remove_own(path, rows, settings):
    """Remove the file of a run that was killed after it wrote its results.

    A file of other rows or settings, or a damaged one, is left alone.

    Args:
        path: the file of the :class:`Store`.
        rows: fingerprint of the training rows.
        settings: dict of everything else that determines the result.
    """
    try:
        saved = load_checkpoint(path, "resume", REMEDY)
    except InputError:
        return
    if (saved.get("fingerprint"), saved.get("settings")) == (rows, settings):
        remove(path)


class Finished(NamedTuple):
    """The checked content of a finished run's files."""

    y_test: np.ndarray  # (m,)
    score: np.ndarray  # (m,)
    log: list  # the entries of log.jsonl
    report: dict
    checkpoint: dict  # the content of checkpoint.pt


def finished_run(folder, rows, settings, ranks=False):
    """The finished run in a folder, as :class:`Finished`.

    None if the run is not done, lacks a file, or had other settings, of which a warning tells: the
    run that asks starts anew and replaces it. That the report is one of these rows is up to
    :func:`refuse_other_rows`.

    Args:
        folder: a :class:`run.folder.RunFolder`.
        rows: fingerprint of the training rows.
        settings: settings as in the report and its ``config``.
        ranks: the run has no labels, and ranks its rows in scores.csv.

    Raises:
        InputError: a file of the finished run is damaged, or its checkpoint is another run's.
    """
    needed = ["DONE", "checkpoint.pt", *(["scores.csv"] if ranks else [])]
    if not all((folder.path / name).exists() for name in needed):
        return None
    path = folder.path / "report.json"
    try:
        report = json.loads(path.read_text("utf-8"))
        found = report | report["config"]
        other = {name: found.get(name) for name in settings if found.get(name) != settings[name]}
        if other:
            return _say_of_other(folder, other, settings)
        if not ranks:
            page(report, [])  # raises if the report lacks anything that --plot needs
        path = folder.path / "scores.npz"
        with np.load(path, allow_pickle=False) as arrays:
            y, score = arrays["y_test"], arrays["score"]
        _check_arrays(y, score, report, ranks)
        path = folder.path / "log.jsonl"
        lines = path.read_text("utf-8")
        log = [json.loads(line) for line in lines.splitlines()]
        check_log(log)
        if not lines.endswith("\n"):  # every run trains something: a crash left it empty or cut
            raise ValueError("no whole last line")
    except UserWarning:  # where warnings are errors
        raise
    except Exception:  # a damaged file raises anything, even RecursionError and MemoryError
        raise InputError(f"{path}: is missing or damaged, though the run is done: {ANEW}") from None
    path = folder.path / "checkpoint.pt"
    checkpoint = load_checkpoint(path, KIND, ANEW)
    with content_of(path, ANEW):
        own = _is_of(checkpoint, rows, settings)
    if not own:
        raise InputError(
            f"{path}: is of a run on other rows or settings than report.json beside it: put the "
            f"run's own there, or {ANEW}"
        )
    return Finished(y, score, log, report, checkpoint)


def _say_of_other(folder, other, wanted):
    """Warn that a finished run with ``other`` settings (a dict) than those wanted is replaced."""
    said = [
        "other names of columns, or another way to read them"
        if name == "columns_fingerprint"
        else f"{name}={value!r} (now {wanted[name]!r})"
        for name, value in other.items()
    ]
    tell(
        f"{folder.path}: the run that is done there had {', '.join(said)}: --resume finds nothing "
        "to go on from, this run starts anew and replaces it"
    )


def refuse_other_rows(folder, prints):
    """Refuse a folder with the results of other rows: they would be lost, or mixed with this run's.

    Args:
        folder: a :class:`run.folder.RunFolder`.
        prints: fingerprints of the rows, as in the report.

    Raises:
        InputError: names the folder and the dataset that its results are of.
    """
    if not (folder.path / "DONE").exists():
        return
    try:
        report = json.loads((folder.path / "report.json").read_text("utf-8"))
        other = any(report[name] != value for name, value in prints.items())
        dataset = report["config"]["dataset"]
    except Exception:  # of a damaged report, which tells nothing, --resume says so
        return
    if other:
        raise InputError(
            f"{folder.path}: holds the results of other rows (of dataset {dataset!r}): choose "
            "another folder with --out, or delete it"
        )


def check_ranking(path, own):
    """Refuse a scores.csv that does not rank the training rows of its run's detector.

    Args:
        path: the file.
        own: bytes that the detector would write now; rounding may differ.

    Raises:
        InputError: names the file.
    """
    try:
        lines = [
            content.splitlines() for content in (path.read_text(encoding="utf-8"), own.decode())
        ]
        if len(lines[0]) != len(lines[1]):  # of no line at all numpy would warn
            raise ValueError("another number of rows")
        there, wanted = (np.loadtxt(each[1:], delimiter=",", ndmin=2) for each in lines)
        same = lines[0][0] == lines[1][0] and there.shape == wanted.shape
        same = same and np.allclose(there, wanted, rtol=1e-6)
    except (ValueError, IndexError):  # the file is not such a table
        same = False
    if not same:
        raise InputError(f"{path}: is not the ranking that the run wrote: take it away, or {ANEW}")


def _is_of(checkpoint, rows, settings):
    """Is this a checkpoint of a run with this fingerprint of rows and these settings?"""
    columns = Columns.from_snapshot(to_arrays(checkpoint["columns"]), checkpoint["n_features"])
    found = checkpoint["parameters"]
    found = found | {"seed": found["random_state"], "columns_fingerprint": columns.fingerprint}
    same = all(found[name] == value for name, value in settings.items())
    return same and checkpoint["fingerprint"] == rows


def _check_arrays(y, score, report, ranks):
    """Raise ValueError unless labels and scores match the report."""
    classes = set() if ranks else {0, 1}
    whole = y.shape == score.shape == (report["n_test"],) and set(y.tolist()) == classes
    plain = y.dtype.kind == "i" and score.dtype.kind == "f"
    if not whole or not plain or not np.isfinite(score).all():
        raise ValueError("other rows than the report's")
    for name, value in measures(y, score).items():
        told = report[name]
        # Other versions of scikit-learn may sum in another order.
        if told != value and not math.isclose(told, value, abs_tol=1e-9):
            raise ValueError(f"{name} is {value}, the report says {told}")


def check_log(log):
    """Refuse a log that figures cannot show, by ValueError or what a wrong type raises."""
    held = {}
    for entry in log:
        entry = dict(entry)
        stage = entry.pop("stage")
        episodes = stage == "episodes"
        if not are_numbers(entry) or not 0 <= entry["episode" if episodes else "step"] < LARGEST:
            raise ValueError("another content than a stage and numbers")
        # Entries of episodes may differ: in some the policy learned nothing and has no numbers.
        if not episodes and held.setdefault(stage, entry.keys()) != entry.keys():
            raise ValueError(f"entries of {stage} that do not hold the same")
