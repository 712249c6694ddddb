"""The benchmark's records: one JSON Lines file per protocol; equal records give equal bytes.

    results/records/seen.jsonl    one line per cell, sorted by method, dataset and seed
    results/records/.cells/       working files of cells that are not merged yet, locks

A cell's process writes a working file of its own, atomically. The sweep merges the working files
into the ``.jsonl`` files under one lock: it writes a new file beside the old one, renames it, and
deletes the working files last. Whenever a process is killed, a record is in a working file, in a
merged file, or in both, and the next sweep merges what was left. A search for a record must look at
the working files first, since a record moves from there to the merged file, never back.
"""

import hashlib
import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from swift_hydra.data.splits import parse_protocol, protocol_name
from swift_hydra.files import file_lock, write_bytes
from swift_hydra.settings import InputError

FIRST_KEYS = ("method", "protocol", "dataset", "seed", "max_rows")  # of a line; others are sorted
WORKING = ".cells"
MEASURED = ("auc_roc", "auc_pr")  # these, and seconds, are in every record that did not fail
SECONDS = ("fit_seconds", "score_seconds")
SECONDS_OF_SCRIPT = ("wall_seconds",)
LONGEST = 150  # bytes of a working file's name before seed and suffix; file systems allow 255


class RecordKey(NamedTuple):
    """The entries that identify a record; two records with one key belong to the same cell."""

    method: str
    protocol: str
    dataset: str
    seed: int


def key_of(record):
    """The :class:`RecordKey` of a record (a dict)."""
    return RecordKey(*(record[name] for name in RecordKey._fields))


def merged_path(folder, protocol):
    """The ``.jsonl`` file of a protocol."""
    return Path(folder) / f"{protocol}.jsonl"


def working_path(folder, key):
    """The working file of a cell."""
    method = key.method.replace("/", "-")
    name = f"{method}.{key.protocol}.{key.dataset}"
    written = name.encode(errors="surrogateescape")
    if len(written) > LONGEST:
        start = written[:LONGEST].decode(errors="ignore")
        name = f"{start}-{hashlib.sha256(written).hexdigest()[:16]}"
    return Path(folder) / WORKING / f"{name}-seed{key.seed}.json"


def lock_record(folder, key, holder):
    """Hold one of a cell's locks while it is computed.

    Args:
        folder: folder of the records.
        key: the cell's :class:`RecordKey`.
        holder: which of the cell's locks, ``worker`` or ``child``.

    Returns:
        A context manager. The system releases the lock when its process dies.
    """
    path = working_path(folder, key).with_suffix(f".{holder}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return file_lock(path)


def as_line(record):
    """One record as a line, with keys in a fixed order."""
    first = {name: record[name] for name in FIRST_KEYS if name in record}
    rest = {name: record[name] for name in sorted(record.keys() - first.keys())}
    return json.dumps(first | rest, separators=(", ", ": ")) + "\n"


def write_record(folder, record):
    """Write a cell's working file, atomically."""
    path = working_path(folder, key_of(record))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, as_line(record).encode())


def read_records(path):
    """All records of one file, working or merged.

    Returns:
        A dict from :class:`RecordKey` to record; empty if there is no file.

    Raises:
        InputError: a line is not a record, or the path is not a regular file.
    """
    if Path(path).exists() and not Path(path).is_file():  # reading a pipe would block
        raise InputError(f"{path}: is no regular file: take it out of the folder")
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:  # not written yet, or merged a moment ago
        return {}
    found = {}
    for number, line in enumerate(lines, 1):
        try:
            record = _as_record(line)
            found[key_of(record)] = record
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f"{path}, line {number}: is not a record: take the line out, "
                "and the same sweep computes the cell again"
            ) from None
    return found


def _as_record(line):
    record = json.loads(line.decode())
    parts = (*key_of(record), record["failed"])
    kinds = zip(parts, (str, str, str, int, str | None), strict=True)
    if not all(isinstance(value, kind) for value, kind in kinds):
        raise TypeError("a key of another type")
    if not _is_protocol(record["protocol"]):  # it becomes part of a file's name
        raise ValueError("an unknown protocol")
    if record["failed"] is None:
        seconds = SECONDS_OF_SCRIPT if record["method"] == "script" else SECONDS
        for name in (*MEASURED, *seconds):
            if type(record[name]) not in (int, float):
                raise TypeError(f"{name} is no number")
    return record


@cache
def _is_protocol(name):
    return protocol_name(*parse_protocol(name)) == name


def find_record(folder, key):
    """The record of a cell, or None."""
    working = read_records(working_path(folder, key))
    if key in working:
        return working[key]
    return read_records(merged_path(folder, key.protocol)).get(key)


def load_records(folder):
    """All records of a folder, merged or not.

    Returns:
        A list of dicts, sorted by method, protocol, dataset and seed.
    """
    found = {}
    for path in _working_files(folder):
        found |= read_records(path)
    for path in sorted(Path(folder).glob("*.jsonl")):
        found |= read_records(path)
    return [found[key] for key in sorted(found)]


def merge_records(folder):
    """Merge the working files into the ``.jsonl`` files; records already there are kept."""
    with _merge_lock(folder):
        _merge(folder)


def remove_records(folder, keys):
    """Remove records, so that their cells are computed again.

    Args:
        folder: folder of the records.
        keys: a collection of :class:`RecordKey`.
    """
    with _merge_lock(folder):
        _merge(folder)
        for path in {merged_path(folder, key.protocol) for key in keys}:
            found = read_records(path)
            _write_merged(path, {key: found[key] for key in found.keys() - set(keys)})


def _merge_lock(folder):
    working = Path(folder) / WORKING
    working.mkdir(parents=True, exist_ok=True)
    return file_lock(working / "merge.lock")


def _working_files(folder):
    return sorted((Path(folder) / WORKING).glob("*.json"))


def _merge(folder):
    """The work of :func:`merge_records`, while its lock is held."""
    waiting = defaultdict(dict)
    files = _working_files(folder)
    for path in files:
        for key, record in read_records(path).items():
            waiting[merged_path(folder, key.protocol)][key] = record
    for path, records in waiting.items():
        _write_merged(path, records | read_records(path))
    for path in files:
        path.unlink()


def _write_merged(path, records):
    if not records:
        path.unlink(missing_ok=True)
        return
    lines = [as_line(records[key]) for key in sorted(records)]
    write_bytes(path, "".join(lines).encode())
