"""What a run that was cut off had finished, for ``--resume``: one file in its folder.

A stage is fully determined by rows, settings and seed, so that an entry of the same rows and
settings can stand for the stage, whichever entries the moment of the end has left. The file is gone
when the run is done.
"""

import copy
import json
import math
import time
from typing import NamedTuple

import numpy as np

from swift_hydra.data.rows import Columns
from swift_hydra.files import KIND, content_of, load_checkpoint, remove, write_torch
from swift_hydra.journal import LARGEST, are_numbers
from swift_hydra.run.page import page
from swift_hydra.run.report import measures
from swift_hydra.settings import InputError
from swift_hydra.snapshot import to_arrays

ANEW = "run without --resume"
REMEDY = f"delete it or {ANEW}"


class Pace(NamedTuple):
    """How often a run writes what it keeps.

    Attributes:
        between: seconds from one write to the next, at least, at the end of a stage.
        within: the same within a long stage.
        share: of the run's time that writing may take: a slow disk is written to less often.
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
        settings: dict of all else that decides the result.
        resume: take what is there; otherwise the run starts anew, and its first write replaces the
            file.
        say: a callable that gets a line for the reader.
        pace: a :class:`Pace`.

    Raises:
        InputError: with ``resume``, if the file is damaged or was left by a run on other rows or
            settings.
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
        """While what was kept is put in place: whatever is wrong with it names the file."""
        return content_of(self.path, REMEDY)

    def get(self, stage):
        """What :meth:`put` was last given for a stage, or None."""
        return copy.deepcopy(self.entries.get(stage))

    def put(self, stage, content, n_done, n_steps):
        """Keep ``content`` (tensors and plain values) of a stage after a step."""
        self.entries[stage] = copy.deepcopy(content)  # networks go on learning in place
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
        """The run is done: nothing is left to go on from."""
        self.entries = {}
        remove(self.path)


def remove_own(path, rows, settings):
    """Remove the file of a run that was killed after its last result and before its end.

    One of other rows or settings, or a damaged one, stays where it is.

    Args:
        path: where :class:`Store` keeps it.
        rows: fingerprint of the training rows.
        settings: dict of all else that decides the result.
    """
    try:
        saved = load_checkpoint(path, "resume", REMEDY)
    except InputError:
        return
    if (saved.get("fingerprint"), saved.get("settings")) == (rows, settings):
        remove(path)


class Finished(NamedTuple):
    """What a run that is done left, checked: whoever uses it need not look again."""

    y_test: np.ndarray  # (m,)
    score: np.ndarray  # (m,)
    log: list  # the entries of log.jsonl
    report: dict
    checkpoint: dict  # what checkpoint.pt holds


def finished_run(folder, prints, settings, ranks=False):
    """The run that ``folder`` holds: :class:`Finished`.

    None if it is not done, lacks a file, or is of other rows or settings.

    Args:
        folder: a RunFolder.
        prints: fingerprints of the rows, as in the report.
        settings: as in its ``config``.
        ranks: without labels, a run ranks its rows in scores.csv.

    Raises:
        InputError: if a file of the finished run is damaged, or its checkpoint is another run's.
    """
    needed = ["DONE", "checkpoint.pt", *(["scores.csv"] if ranks else [])]
    if not all((folder.path / name).exists() for name in needed):
        return None
    path = folder.path / "report.json"
    try:
        report = json.loads(path.read_text())
        found = report | report["config"]
        wanted = prints | settings
        if any(found.get(name) != value for name, value in wanted.items()):
            return None
        if not ranks:
            page(report, [])  # whatever --plot needs of it is there
        path = folder.path / "scores.npz"
        with np.load(path, allow_pickle=False) as arrays:
            y, score = arrays["y_test"], arrays["score"]
        _check_arrays(y, score, report, ranks)
        path = folder.path / "log.jsonl"
        log = [json.loads(line) for line in path.read_text().splitlines()]
        check_log(log)
    except Exception:  # a damaged file raises anything, RecursionError and MemoryError among it
        raise InputError(f"{path}: is missing or damaged, though the run is done: {ANEW}") from None
    path = folder.path / "checkpoint.pt"
    checkpoint = load_checkpoint(path, KIND, ANEW)
    with content_of(path, ANEW):
        own = _is_of(checkpoint, report["train_fingerprint"], settings)
    if not own:
        raise InputError(
            f"{path}: is of a run on other rows or settings than report.json beside it: put the "
            f"run's own there, or {ANEW}"
        )
    return Finished(y, score, log, report, checkpoint)


def check_ranking(path, own):
    """Refuse a scores.csv that does not rank the training rows of its run's detector.

    Args:
        path: the file.
        own: bytes that the detector would write now; rounding may differ.

    Raises:
        InputError: naming it.
    """
    try:
        lines = [
            content.splitlines() for content in (path.read_text(encoding="utf-8"), own.decode())
        ]
        there, wanted = (np.loadtxt(each[1:], delimiter=",", ndmin=2) for each in lines)
        same = lines[0][0] == lines[1][0] and there.shape == wanted.shape
        same = same and np.allclose(there, wanted, rtol=1e-6)
    except (ValueError, IndexError):  # another text
        same = False
    if not same:
        raise InputError(f"{path}: is not the ranking that the run wrote: take it away, or {ANEW}")


def _is_of(checkpoint, rows, settings):
    """Is it a checkpoint of the run with this fingerprint of rows and these settings?"""
    columns = Columns.from_snapshot(to_arrays(checkpoint["columns"]), checkpoint["n_features"])
    found = checkpoint["parameters"]
    found = found | {"seed": found["random_state"], "columns_fingerprint": columns.mark}
    same = all(found[name] == value for name, value in settings.items())
    return same and checkpoint["fingerprint"] == rows


def _check_arrays(y, score, report, ranks):
    """Refuse labels and scores that are not those of the report. Raises ValueError."""
    classes = set() if ranks else {0, 1}
    whole = y.shape == score.shape == (report["n_test"],) and set(y.tolist()) == classes
    plain = y.dtype.kind == "i" and score.dtype.kind == "f"
    if not whole or not plain or not np.isfinite(score).all():
        raise ValueError("other rows than the report's")
    for name, value in measures(y, score).items():
        told = report[name]
        # Another version of scikit-learn may add in another order.
        if told != value and not math.isclose(told, value, abs_tol=1e-9):
            raise ValueError(f"{name} is {value}, the report says {told}")


def check_log(log):
    """Refuse entries that figures cannot show. Raises ValueError, or what a wrong type raises."""
    held = {}
    for entry in log:
        entry = dict(entry)
        stage = entry.pop("stage")
        episodes = stage == "episodes"
        if not are_numbers(entry) or not 0 <= entry["episode" if episodes else "step"] < LARGEST:
            raise ValueError("another content than a stage and numbers")
        # A policy that learned nothing in an episode has no numbers of it.
        if not episodes and held.setdefault(stage, entry.keys()) != entry.keys():
            raise ValueError(f"entries of {stage} that do not hold the same")
