"""Fetch ADBench sets: checked by SHA256, resumable; a good file is never replaced.

    python dataloader.py --download Ionosphere,Pima
    python dataloader.py --download all --source URL       # a mirror that has URL/<file>.npz

The SHA256 sums of the sets measured for ``ADBenchDatasets/datasets.csv`` are known. For the others
the sum of the first download is recorded in ``SHA256SUMS.local`` and required from then on. An
interruption leaves a part-file ``<file>.npz.part``, and the next call continues from its end if the
server supports that (HTTP Range).
"""

import contextlib
import hashlib
import logging
import os
import queue
import re
import shutil
import sys
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

from tqdm import tqdm

from swift_hydra.data.catalogue import DATASET_DIR, catalogue, read_catalogue
from swift_hydra.settings import InputError

DEFAULT_SOURCE = "https://github.com/Minqi824/ADBench/raw/main/adbench/datasets"
LOCAL_SUMS = "SHA256SUMS.local"
TIMEOUT = (10, 60)  # seconds to connect, seconds without a byte
ANSWER = 120.0  # seconds until all headers of the answer have arrived
BLOCK = 1 << 17  # bytes read at most at a time; fewer where fewer have come, so soon on disk
MOST_BYTES = 1 << 30  # of a file whose length the server does not say; ADBench's largest has 600 MB
SLOWEST = 1024  # lowest average rate in bytes per second, enforced after PATIENCE
PATIENCE = 30.0  # seconds
# The embedded yeast is rebuilt from UCI's data (ADBenchDatasets/build_yeast.py): the same table in
# other bytes.
EMBEDDED = {"47_yeast.npz": "cfc8cef4d4d32c47d23fefd5994e2cd8cba51f5fde10f5a5e2efc8b778cc8279"}


def download(names, source=None, folder=DATASET_DIR, listing=None, embedded=EMBEDDED):
    """Fetch data sets; those already there with the right sum are skipped.

    Args:
        names: an ADBench name, several separated by commas, a sequence of names, or ``"all"``.
        source: a mirror's URL, files are taken from ``source/<file>.npz``; None takes ADBench's own
            repository.
        folder: where the files go.
        listing: the file with names and sums, see :func:`data.catalogue.read_catalogue`.
        embedded: {file name: SHA256} of files that are accepted in place of the published ones.

    Returns:
        The paths of the files, in the order asked for.

    Raises:
        InputError: pooch is missing, a name is unknown, or files failed. Of several files it is
            raised once all others are done; the reasons are then printed as lines with FAILED.
    """
    files = _files(names, listing)
    if source is not None and not source.lower().startswith(("http://", "https://")):
        raise InputError(f"source={source!r} is no HTTP address: give http://... or https://...")
    try:
        import pooch
    except ImportError as error:
        raise InputError("downloading needs the package pooch: pip install pooch") from error
    folder = Path(folder)
    rows = [row for row in read_catalogue(listing) if row["sha256"]]
    known = {Path(row["files"][0]).name: row["sha256"] for row in rows}
    paths = []
    failures = []
    for file in files:
        name = Path(file).name
        url = f"{source.rstrip('/')}/{name}" if source else f"{DEFAULT_SOURCE}/{file}"
        try:
            good = {known.get(name), embedded.get(name)} - {None}
            paths.append(_fetch(pooch, url, folder / name, known.get(name), good))
        except InputError as error:
            if len(files) == 1:
                raise
            failures.append(name)
            print(f"FAILED {error}", flush=True)
    if failures:
        raise InputError(
            f"{len(failures)} of {len(files)} files failed: {', '.join(failures)}: see the lines "
            "marked FAILED, the same command tries them again"
        )
    return paths


def _files(names, listing):
    names = names.split(",") if isinstance(names, str) else list(names)
    names = [n.strip() for n in names if n.strip()]
    if [n.casefold() for n in names] == ["all"]:
        return [file for row in read_catalogue(listing) for file in row["files"]]
    known = catalogue(listing)
    files = {}
    for name in names:
        key = name.casefold().removesuffix(".npz")
        if key not in known:
            raise InputError(
                f"{name!r} is no ADBench name: ADBenchDatasets/README.md lists them, or give all"
            )
        files |= dict.fromkeys(known[key])
    if not files:
        raise InputError(
            "there is no name to download: give ADBench names separated by commas, or all"
        )
    return list(files)


def _fetch(pooch, url, target, sha256, good):
    """One file, unless it is there already; returns its path.

    Args:
        pooch: the module.
        url: where it comes from.
        target: where it goes.
        sha256: its published sum, or None.
        good: sums with which an existing file is kept.
    """
    name = target.name
    folder = target.parent
    wanted = sha256 or _read_local(folder).get(name)
    if target.is_file():
        if _is_good(target, wanted, good):
            return target
        print(
            f"{name}: the file there is damaged or of another version, it is fetched again",
            flush=True,
        )
    log = pooch.get_logger()
    level = log.level
    log.setLevel(logging.ERROR)  # pooch's messages would repeat our own
    try:
        _retrieve(pooch, url, target, wanted, sha256 is not None)
    except OSError as error:
        raise InputError(
            f"{name} cannot be written to {folder}: {error.strerror or error}"
        ) from error
    finally:
        log.setLevel(level)
    if wanted is None:
        _record(folder, name, sha256_of(target), "first download")
    else:
        print(f"{name}: done, {target.stat().st_size} bytes, SHA256 as recorded", flush=True)
    return target


def _is_good(target, wanted, good):
    """Is the existing file a right one? Prints a line if it is."""
    found = sha256_of(target)
    if found == wanted or found in good:
        print(f"{target.name}: already there, SHA256 as recorded", flush=True)
        return True
    if wanted is None and _intact(target):
        _record(target.parent, target.name, found, "file already there")
        return True
    return False


def _retrieve(pooch, url, target, wanted, published):
    """Fetch a file by pooch.

    If the sum is wrong after a part-file was continued, that part may have come from another
    source: a second try then fetches the whole file.
    """
    name, folder = target.name, target.parent
    fetcher = _Resuming(name, folder / f"{name}.part", None if wanted else _intact)
    # What pooch leaves where it is killed has names that cannot be told from the user's files.
    own = folder / f".{name}.fetched"
    for attempt in (1, 2):
        try:
            pooch.retrieve(url, wanted and f"sha256:{wanted}", name, own, downloader=fetcher)
            os.replace(own / name, target)
            return
        except InputError:
            raise
        except ValueError as error:
            # The sum differs; pooch's own copy is gone, the file there untouched.
            if attempt == 1 and fetcher.resumed:
                continue
            remedy = ""
            if not published:
                sums = folder / LOCAL_SUMS
                remedy = f"; if the source has a new version, delete its line in {sums}"
            raise InputError(
                f"{name}: what {url} sent has another SHA256 than recorded ({wanted[:12]}...): "
                f"refused and removed, try again or use another --source{remedy}"
            ) from error
        finally:
            shutil.rmtree(own, ignore_errors=True)


class _Resuming:
    """A downloader for pooch that keeps a part-file and asks the server for the rest.

    Args:
        name: the file's name, for messages.
        part: path of the part-file.
        check: a function of the complete part-file that says whether it is usable, or None.
    """

    def __init__(self, name, part, check):
        self.name = name
        self.part = part
        self.check = check
        self.resumed = False

    def __call__(self, url, output_file, pooch_object):
        import requests  # pooch brings both along
        from urllib3.exceptions import HTTPError

        try:
            self._get(requests, url)
        except InputError:
            raise
        # A ValueError is of an address or a number in the answer; pooch's own is of the sum.
        except (requests.exceptions.RequestException, HTTPError, ValueError) as error:
            have = self.part.stat().st_size if self.part.exists() else 0
            remedy = "the same command goes on from there"
            if isinstance(error, ValueError):
                remedy = "check the address or --source"
            raise InputError(
                f"{self.name}: the connection to {url} failed ({type(error).__name__}) with {have} "
                f"bytes on disk: {remedy}"
            ) from error
        if self.check and not self.check(self.part):
            self.part.unlink()
            raise InputError(
                f"{self.name}: {url} sent no npz archive: refused and removed, check the address "
                "or --source"
            )
        os.replace(self.part, output_file)

    def _get(self, requests, url):
        have = self.part.stat().st_size if self.part.exists() else 0
        # identity: positions in a compressed transfer would not be positions in the file
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        ask = partial(requests.get, url, headers=headers, stream=True, timeout=TIMEOUT)
        with _within(ANSWER, ask, f"{self.name}: {url} sends no whole answer") as reply:
            self.resumed = _goes_on_at(reply, have)
            if have and reply.status_code in (206, 416) and not self.resumed:
                self.part.unlink()  # the answer is not the rest of this file: fetch all of it
                return self._get(requests, url)
            if reply.status_code not in (200, 206):
                what = "there is no such file" if reply.status_code == 404 else "the server refuses"
                raise InputError(
                    f"{self.name}: {what} (HTTP {reply.status_code} at {url}): check the name or "
                    "--source"
                )
            self._write(reply, url, have if self.resumed else 0)

    def _write(self, reply, url, have):
        size = reply.headers.get("Content-Length")
        total = have + int(size) if size and size.isdigit() else None
        most = min(total or MOST_BYTES, 4 * MOST_BYTES)
        if total is not None and total > most:
            raise InputError(
                f"{self.name}: {url} has {total} bytes, more than {most}: refused, check the "
                "address or --source"
            )
        start = time.monotonic()
        came = 0
        # A line between two pieces of a body may come byte by byte for hours, too.
        read = partial(reply.raw.read1, BLOCK)
        wait = partial(_within, ANSWER, read, f"{self.name}: {url} sends no data", reply)
        with (
            open(self.part, "ab" if self.resumed else "wb", buffering=0) as out,
            _Progress(self.name, url, total, have) as up,
        ):
            while block := wait():
                came += len(block)
                if have + came > most:
                    self.part.unlink(missing_ok=True)  # never continue what is another file
                    raise InputError(
                        f"{self.name}: {url} sends more than {most} bytes: refused, check the "
                        "address or --source"
                    )
                out.write(block)
                up(len(block))
                seconds = time.monotonic() - start
                if seconds > PATIENCE and came < SLOWEST * seconds:
                    raise InputError(
                        f"{self.name}: {url} sends {came / seconds:.0f} bytes a second: given up "
                        f"with {have + came} bytes on disk, the same command goes on from there"
                    )
        if total is not None and have + came < total:
            raise InputError(
                f"{self.name}: the connection to {url} ended with {have + came} bytes of {total} "
                "on disk: the same command goes on from there"
            )


def _within(seconds, call, complaint, reply=None):
    """What ``call`` returns or raises, if it does so within this many seconds.

    The timeout of requests applies to every single read: a server that sends its headers byte by
    byte could block us for hours. A thread that still waits then ends with the process.

    Args:
        seconds: how long to wait.
        call: a function without arguments.
        complaint: the beginning of the error's message.
        reply: the answer that ``call`` reads from; it is cut off then, as closing it would wait for
            the thread.

    Raises:
        InputError: with the complaint, after that time.
    """
    outcome = queue.SimpleQueue()

    def run():
        try:
            outcome.put((call(), None))
        except BaseException as error:  # raised again in the calling thread
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = outcome.get(timeout=seconds)
    except BaseException as late:  # Ctrl-C too
        with contextlib.suppress(AttributeError, ValueError, RuntimeError, OSError):
            reply.raw.shutdown()
        if not isinstance(late, queue.Empty):
            raise
        raise InputError(
            f"{complaint} within {seconds:g} seconds: try again later, or use another --source"
        ) from None
    if error is not None:
        raise error
    return value


def _goes_on_at(reply, have):
    """Does the reply continue a file at byte ``have``?"""
    start = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
    return bool(have) and reply.status_code == 206 and bool(start) and int(start[1]) == have


class _Progress:
    """A tqdm bar on a terminal, one plain line elsewhere."""

    def __init__(self, name, url, total, have):
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=name, leave=False
            )
        else:
            size = f", {total} bytes" if total else ""
            goes_on = f", goes on at byte {have}" if have else ""
            print(f"{name}: from {url}{size}{goes_on}", flush=True)

    def __enter__(self):
        return self.bar.update if self.bar is not None else lambda n: None

    def __exit__(self, *exc):
        if self.bar is not None:
            self.bar.close()


def sha256_of(path):
    """SHA256 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path):
    """Is it a zip archive whose members have the right checksums, and not, say, an error page?"""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError):
        return False


def _read_local(folder):
    path = Path(folder) / LOCAL_SUMS
    if not path.is_file():
        return {}
    lines = (line.split() for line in path.read_text("utf-8", errors="replace").splitlines())
    return {parts[1]: parts[0] for parts in lines if len(parts) == 2}


def _record(folder, name, sha256, occasion):
    """Add a sum to ``SHA256SUMS.local`` (the format of ``sha256sum -c``), atomically."""
    from swift_hydra.files import write_bytes  # imports torch, which this package avoids

    sums = _read_local(folder) | {name: sha256}
    lines = (f"{value}  {key}\n" for key, value in sorted(sums.items()))
    write_bytes(Path(folder) / LOCAL_SUMS, "".join(lines).encode())
    print(
        f"{name}: no published SHA256: that of the {occasion} is in {LOCAL_SUMS} and checked from "
        "now on",
        flush=True,
    )
