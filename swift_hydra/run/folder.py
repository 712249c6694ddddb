"""The folder of a run: ``<out>/<dataset>/<protocol>/seed<k>/``, written atomically, ``DONE`` last.

A file appears completely or not at all: it is written under another name in the folder and then
renamed. An interrupted run leaves the files of the run before it unchanged. Only one run at a time
can use the folder.
"""

import base64
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from swift_hydra.files import (
    NO_LOCKS,
    file_lock,
    part,
    real_place,
    remove,
    remove_left_parts,
    torch_bytes,
)
from swift_hydra.settings import InputError

FIGURE_FILES = (
    *("curves.png", "scores.png", "alarms.png", "map.png", "experts.png"),
    *("episodes.png", "training.png"),
)
RANKING = "row,score,p_value,rank,anomaly"  # first line of a run's own scores.csv
EVENTS = "events.out.tfevents.*"  # in the folder tensorboard
ARRAYS = ("checkpoint.pt", "scores.npz")  # files of every run that did not fail
OPTIONAL = (*FIGURE_FILES, "report.html", "scores.csv", "student.onnx")  # files of some runs


class RunFolder:
    """One run's place on disk.

    Args:
        out: folder of all runs.
        dataset: name of the set.
        protocol: the split's protocol, named by :func:`data.splits.protocol_name`.
        seed: seed of the run.
        table: the file that the run reads, or None.

    Raises:
        InputError: the folder cannot be created or written, a link leads out of ``out``, or at the
            place of one of the run's files is the table that it reads, a link, or not a file.
    """

    FILES = (
        "log.jsonl",
        "checkpoint.pt",
        "scores.npz",
        "scores.csv",
        "report.json",
        "DONE",
        "pretrained.pt",
        "pretrain-resume.pt",
        "resume.pt",
    )

    def __init__(self, out, dataset, protocol, seed, table=None):
        run = Path(dataset, protocol, f"seed{seed}")
        self.path = Path(out) / run
        real = real_place(self.path)
        if real != real_place(out) / run:
            raise InputError(
                f"{self.path}: a link leads to {real}, out of {out}: remove the link, or name the "
                "folder that it leads to with --out"
            )
        for name in (*self.FILES, *OPTIONAL, "tensorboard"):
            if (self.path / name).is_symlink():
                raise InputError(
                    f"{self.path / name}: is a link: remove it, a run writes none but its own files"
                )
        for path in (self.path / name for name in (*self.FILES, *OPTIONAL)):
            if path.exists() and not path.is_file():  # reading a pipe could block for ever
                raise InputError(
                    f"{path}: is no ordinary file: take it away, a run has its own there"
                )
        self._refuse_to_replace(table)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(
                f"{out}: cannot write there ({error.strerror}): choose another folder with --out"
            ) from None

    def _refuse_to_replace(self, table):
        """Refuse a table that is one of the run's own files, also by a link: it would be lost."""
        if table is None or not os.path.exists(table):
            return
        for name in (".lock", *self.FILES, *OPTIONAL):
            path = self.path / name
            if path.exists() and path.samefile(table):
                raise InputError(
                    f"{path}: is what is read, it would be lost: choose another folder with --out"
                )

    @contextlib.contextmanager
    def locked(self):
        """Lock the folder: a second run is refused until this one ends, in whatever way.

        Reading needs no lock.

        Raises:
            InputError: another run is using the folder.
            KeyboardInterrupt: in place of the original one, with a text that says what to do next.
        """
        lock = self.path / ".lock"
        with contextlib.ExitStack() as stack:
            try:
                while True:
                    file = stack.enter_context(file_lock(lock, wait=False))
                    with contextlib.suppress(FileNotFoundError):
                        if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                            break
                    stack.close()  # its holder ended and removed the file before we locked it
            except BlockingIOError:
                raise InputError(
                    f"{self.path}: another run is using this folder: wait for its end, or choose "
                    "another with --out"
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise InputError(
                        f"{lock}: cannot be written ({error.strerror}): delete it, or choose "
                        "another folder with --out"
                    ) from None
                print(
                    f"warning: {self.path} cannot be locked ({error.strerror}): see to it that no "
                    "second run uses it",
                    file=sys.stderr,
                )
            # A killed run may have left part-files.
            for name in {*self.FILES, *OPTIONAL}:
                remove_left_parts(self.path / name)
            try:
                yield self
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    "the same command with --resume goes on from what is on disk"
                ) from None
            finally:
                with contextlib.suppress(OSError):  # Windows does not remove an open file
                    lock.unlink()

    def write_results(self, report, log, arrays, checkpoint, figures=None):
        """Write all files of a finished run, ``DONE`` last.

        Files of an earlier run that this one lacks are removed. All new files are on disk before
        the first is renamed to its place: if there is no room, the earlier run stays complete.

        Args:
            report: content of report.json, a dict.
            log: list of dicts.
            arrays: dict of the arrays in scores.npz, or None.
            checkpoint: dict or None.
            figures: {file name: bytes} of figures and pages, or None.
        """
        contents = {"log.jsonl": "".join(json.dumps(entry) + "\n" for entry in log).encode()}
        if checkpoint is not None:
            contents["checkpoint.pt"] = torch_bytes(checkpoint)
        if arrays is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            contents["scores.npz"] = buffer.getvalue()
        contents |= figures or {}
        contents["report.json"] = (json.dumps(report, indent=1) + "\n").encode()
        if report["failed"] is None:
            contents["DONE"] = b""
        with self._parts(contents) as parts:
            remove(self.path / "DONE")
            # Only files of an earlier run: anything else in the folder is not ours.
            for name in (*OPTIONAL, *ARRAYS):
                if name not in contents and not _is_of_score(self.path / name):
                    remove(self.path / name)
            for old in (self.path / "tensorboard").glob(EVENTS):
                remove(old)
            for name, finished in parts.items():
                os.replace(finished, self.path / name)

    def has_figures(self):
        """Are the page and the figures that it shows there, and whole?"""
        page, *figures = (self.path / name for name in ("report.html", *FIGURE_FILES))
        if not page.is_file():
            return False
        text = page.read_bytes()
        drawn = [base64.b64encode(path.read_bytes()) for path in figures if path.is_file()]
        # A crash may have left any of them empty or cut; the page holds each figure once more.
        whole = text.endswith(b"</html>\n") and all(b'base64,%b"' % each in text for each in drawn)
        return whole and len(drawn) == text.count(b"<img ")

    def add(self, contents):
        """Add files {name: bytes} to a finished run."""
        with self._parts(contents) as parts:
            for name, finished in parts.items():
                os.replace(finished, self.path / name)

    @contextlib.contextmanager
    def _parts(self, contents):
        """A context with all contents on disk as part-files, {name: path of the part-file}."""
        with contextlib.ExitStack() as stack:
            yield {
                name: stack.enter_context(
                    part(self.path / name, lambda file, content=content: file.write(content))
                )
                for name, content in contents.items()
            }


def _is_of_score(path):
    """Is this a scores.csv that the command ``score`` wrote, not a run's own ranking?"""
    if path.name != "scores.csv" or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.readline(len(RANKING) + 2).rstrip() != RANKING.encode()
