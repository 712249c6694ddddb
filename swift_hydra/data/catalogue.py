"""Names of data sets: which file a name means, and which sets ADBench has.

The list of ADBench's sets is ``ADBenchDatasets/datasets.csv``; files are looked for beside it.
"""

import csv
import difflib
import re
from pathlib import Path

from swift_hydra.files import looked_at
from swift_hydra.settings import InputError, listed, place_of

TEXT_KINDS = (".csv", ".tsv", ".txt", ".data")
SUFFIXES = (".npz", *TEXT_KINDS, ".gz", ".parquet")
PACKAGE = Path(__file__).resolve().parents[1]
# In a clone the folder is beside the scripts, in an installation inside the package.
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
        spec: an existing file, or a name looked for in ``DATASET_DIR``; case does not matter, and
            the number may be omitted (``yeast`` for ``47_yeast``).

    Returns:
        The path of an existing file.

    Raises:
        InputError: a directory, a missing file, an ADBench set not yet downloaded, an unknown name.
    """
    spec = place_of(spec)
    path = Path(spec)
    with looked_at(path):
        if path.is_file():
            return path
    bare = len(path.parts) == 1
    stem = path.name[:-4] if path.suffix.lower() == ".npz" else path.name
    if bare:
        local = _by_alias(DATASET_DIR.glob("*.npz"))
        if stem.casefold() in local:
            return local[stem.casefold()]
    if path.is_dir():
        raise InputError(f"{spec} is a directory: name one .npz, .csv or .parquet file in it")
    if path.exists():
        raise InputError(f"{spec} is no regular file (a pipe or device): give one")
    known = catalogue()
    files = known.get(stem.casefold(), ())
    if len(files) > 1:
        names = [Path(file).stem for file in files]
        raise InputError(
            f"dataset {spec!r} is {len(files)} files: name one of {listed(names)} "
            f"(download: python dataloader.py --download {stem})"
        )
    if files:
        name = Path(files[0]).stem
        where = "is not downloaded" if bare else "does not exist"
        then = "" if bare else f", and give its name, {name}"
        raise InputError(f"{spec} {where}: run python dataloader.py --download {name}{then}")
    if not bare or path.suffix.lower() in SUFFIXES:
        raise InputError(f"{spec} does not exist: check the path")
    raise InputError(f"dataset {spec!r} is neither a file nor a known name: {_hint(stem, known)}")


def _by_alias(files):
    """{alias: path} of files."""
    return {alias: file for file in sorted(files) for alias in _aliases(file.stem)}


def _hint(stem, known):
    """A text that suggests names similar to ``stem``."""
    names = {Path(file) for group in known.values() for file in group}
    folded = _by_alias({Path(path.name) for path in names} | set(DATASET_DIR.glob("*.npz")))
    matches = difflib.get_close_matches(stem.casefold(), folded, n=5, cutoff=0.6)
    close = list(dict.fromkeys(folded[match].stem for match in matches))
    if close:
        return f"did you mean {', '.join(close)}?"
    return "ADBenchDatasets/README.md lists the names"


def _aliases(stem):
    """``47_yeast`` answers to ``47_yeast`` and ``yeast``."""
    return {stem.casefold(), re.sub(r"^\d+_", "", stem).casefold()}


def read_catalogue(listing=None):
    """The rows of ``datasets.csv``, dicts of strings; ``files`` is a tuple of ``folder/file.npz``.

    Args:
        listing: the file; None takes the project's own.

    Raises:
        InputError: the file cannot be read.
    """
    path = Path(listing or DATASET_DIR / "datasets.csv")
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            return [row | {"files": tuple(row["files"].split())} for row in csv.DictReader(handle)]
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): restore it from the project"
        ) from error


def catalogue(listing=None):
    """ADBench's names with their files: ``{"yeast": ("Classical/47_yeast.npz",), ...}``.

    Names are in lower case. For ``listing`` see :func:`read_catalogue`.
    """
    names = {}
    for row in read_catalogue(listing):
        for key in (row["name"], f"{row['number']}_{row['name']}"):
            names[key.casefold()] = row["files"]
        for file in row["files"]:
            names[Path(file).stem.casefold()] = (file,)
    return names
