"""A file becomes a checked :class:`Dataset` (M1); the splits and the scaler of ``splits.py`` are
offered here as well.

    python dataloader.py                                   # a summary of the embedded set
    python dataloader.py 18_Ionosphere                     # a summary of a downloaded ADBench set
    python dataloader.py my.csv --label-column fraud       # ... of your own table
    python dataloader.py --download Ionosphere,Pima        # fetch ADBench sets
    python dataloader.py --download all --source URL       # fetch all of them from a mirror: URL/<file>.npz

Every mistake in a file raises :class:`config.InputError`, one line with the file, the column or
key, the value found and what to do about it.
"""

import csv
import difflib
import re
from pathlib import Path

from swift_hydra.data.table import listed
from swift_hydra.settings import InputError

PACKAGE = Path(__file__).resolve().parents[1]
# Beside the scripts of a clone, inside an installed package.
DATASET_DIR = next(
    (
        root / "ADBenchDatasets"
        for root in (PACKAGE, PACKAGE.parent)
        if (root / "ADBenchDatasets").is_dir()
    ),
    PACKAGE.parent / "ADBenchDatasets",
)


def resolve_dataset(spec):
    """Find the file behind a path or a name.

    Args:
        spec: an existing file, or a name looked for in ``DATASET_DIR``, case and number optional
            (``yeast``).

    Returns:
        The path of an existing file.

    Raises:
        InputError: a directory, a missing file, an ADBench set not yet downloaded, an unknown name.
    """
    path = Path(spec).expanduser()
    if path.is_file():
        return path

    stem = path.name[:-4] if path.suffix.lower() == ".npz" else path.name
    known, bare = catalogue(), len(path.parts) == 1
    if bare:
        local = {
            alias: file
            for file in sorted(DATASET_DIR.glob("*.npz"))
            for alias in _aliases(file.stem)
        }
        if stem.casefold() in local:
            return local[stem.casefold()]
    if path.is_dir():
        raise InputError(f"{spec} is a directory: name one .npz, .csv or .parquet file in it")
    files = known.get(stem.casefold(), ())
    if len(files) > 1:
        names = [Path(f).stem for f in files]
        raise InputError(
            f"dataset {spec!r} is {len(files)} files: name one of {listed(names)} "
            f"(download: python dataloader.py --download {stem})"
        )
    if files:
        where = "is not downloaded" if bare else "does not exist"
        raise InputError(
            f"{spec} {where}: run python dataloader.py --download {Path(files[0]).stem}"
        )
    if not bare or path.suffix.lower() in (".npz", ".csv", ".parquet"):
        raise InputError(f"{spec} does not exist: check the path")
    names = {Path(f).stem for group in known.values() for f in group} | {
        f.stem for f in DATASET_DIR.glob("*.npz")
    }
    folded = {alias: name for name in sorted(names) for alias in _aliases(name)}
    close = list(
        dict.fromkeys(
            folded[c] for c in difflib.get_close_matches(stem.casefold(), folded, n=5, cutoff=0.6)
        )
    )
    hint = (
        f"did you mean {', '.join(close)}?"
        if close
        else "ADBenchDatasets/README.md lists the names"
    )
    raise InputError(f"dataset {spec!r} is neither a file nor a known name: {hint}")


def _aliases(stem):
    """``47_yeast`` answers to ``47_yeast`` and ``yeast``."""
    return {stem.casefold(), re.sub(r"^\d+_", "", stem).casefold()}


def read_catalogue(path=None):
    """The rows of ``datasets.csv`` as dicts of strings, ``files`` as a tuple of
    ``folder/file.npz``.

    Raises:
        InputError: the table is missing.
    """
    path = Path(path or DATASET_DIR / "datasets.csv")
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            return [row | {"files": tuple(row["files"].split())} for row in csv.DictReader(handle)]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): restore it from the project"
        ) from error


def catalogue():
    """ADBench's names, in lower case, with their files: ``{"yeast": ("Classical/47_yeast.npz",),
    ...}``.
    """
    names = {}
    for row in read_catalogue():
        for key in (row["name"], f"{row['number']}_{row['name']}"):
            names[key.casefold()] = row["files"]
        for file in row["files"]:
            names[Path(file).stem.casefold()] = (file,)
    return names
