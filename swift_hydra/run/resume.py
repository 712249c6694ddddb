"""What a run that was cut off had finished, for ``--resume``: one file in its folder, one entry for
every stage.

A stage is fully determined by rows, settings and seed, so that an entry of the same rows and
settings can stand for the stage, whichever entries the moment of the end has left. The file is gone
when the run is done.
"""

import copy
import json
import time
import zipfile

import numpy as np

from swift_hydra.files import load_checkpoint, write_torch
from swift_hydra.journal import NoStore
from swift_hydra.settings import InputError

BETWEEN_STAGES, WITHIN_STAGES = 2.0, 20.0  # seconds from one write to the next, at least
LARGEST_SHARE = (
    0.03  # of the run's time that writing may take: a slow disk is written to less often
)


class Store(NoStore):
    """The store of one run, see :class:`training.NoStore`.

    Args:
        path: the file.
        rows: fingerprint of the training rows.
        settings: dict of all else that decides the result.
        resume: take what is there; otherwise the run starts anew, and its first write replaces the
            file.
        say: a callable that gets a line for the reader.

    Raises:
        InputError: with ``resume``, if the file is damaged or was left by a run on other rows or
        settings.
    """

    def __init__(self, path, rows, settings, resume, say):
        self.path, self.stamp = path, {"kind": "resume", "fingerprint": rows, "settings": settings}
        self.entries, self.resumed_after = {}, None
        self.written, self.took = time.monotonic(), 0.0
        if not path.exists():
            return
        if not resume:
            say(f"{path} of a run that was cut off will be replaced: --resume would go on from it")
            return
        saved = load_checkpoint(path, "resume", "delete it or run without --resume")
        if saved["fingerprint"] != rows:
            raise InputError(
                f"{path}: was left by a run on other rows: give the dataset it was started with, or run "
                "without --resume to start anew"
            )
        other = [
            f"{name}={value!r} (now {settings.get(name)!r})"
            for name, value in saved["settings"].items()
            if settings.get(name) != value
        ]
        if other:
            raise InputError(
                f"{path}: was left by a run with {', '.join(other)}: give the same, or run without "
                "--resume to start anew"
            )
        self.entries, self.resumed_after = saved["entries"], saved["last"]
        say(f"resuming after {self.resumed_after}")

    def get(self, stage):
        return copy.deepcopy(self.entries.get(stage))

    def put(self, stage, content, n_done, n_steps):
        self.entries[stage] = copy.deepcopy(content)  # networks go on learning in place
        last = f"{stage} {n_done}/{n_steps}"
        if self._pause() >= max(BETWEEN_STAGES, self.took / LARGEST_SHARE):
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
        return self._pause() >= max(WITHIN_STAGES, self.took / LARGEST_SHARE)

    def _pause(self):
        return time.monotonic() - self.written

    def clear(self):
        """The run is done: nothing is left to go on from."""
        self.entries = {}
        self.path.unlink(missing_ok=True)


def finished_run(folder, prints, settings):
    """y_test and score of the run that ``folder`` holds, or None if it is not done, or of other
    rows or settings.

    Args:
        folder: a RunFolder.
        prints: fingerprints of the rows, as in the report.
        settings: as in its ``config``.

    Raises:
        InputError: if a file of the finished run is damaged.
    """
    if not (folder.path / "DONE").exists():
        return None
    path = folder.path / "report.json"
    try:
        report = json.loads(path.read_text())
        found, wanted = report | report["config"], prints | settings
        if any(found.get(name) != value for name, value in wanted.items()):
            return None
        path = folder.path / "scores.npz"
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["y_test"], arrays["score"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        raise InputError(
            f"{path}: is missing or damaged, though the run is done: run without --resume"
        ) from None
