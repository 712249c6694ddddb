"""One fixed configuration, measured on any folder of data sets without tuning for them.

    python benchmark.py --frozen DIR --jobs 2

Methods, protocols, seeds, row limit, all default settings of the class and the SHA-256 of the
project's own code form one canonical JSON text. The SHA-256 of this text is printed at the start
and written on the page: two pages with the same sum were measured in the same way, except for the
versions of other packages. The sum, and those of the sets' files, are stored beside the records in
``frozen.json``, so that records of another configuration, or of another file of the same name, are
never mixed with these. The page, ``frozen.md``, is made from the records alone.
"""

import dataclasses
import functools
import hashlib
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

import swift_hydra
from swift_hydra.bench.comparison import (
    SWIFT_HYDRA,
    headline,
    title_of,
    without_copies,
    without_scores,
)
from swift_hydra.bench.diagrams import draw_all
from swift_hydra.bench.markdown import row_of
from swift_hydra.bench.methods import GROUPS, RECORDED
from swift_hydra.bench.records import key_of, load_records
from swift_hydra.bench.scores import Scores
from swift_hydra.data.download import sha256_of
from swift_hydra.files import write_bytes
from swift_hydra.settings import InputError
from swift_hydra.SwiftHydra import SwiftHydra

LEDGER = "frozen.json"
PAGE = "frozen.md"
WIDTH = 110  # of the page's lines of JSON


@functools.cache
def code_sum():
    """SHA-256 (hex) of the project's own source files, the same in a clone and installed."""
    package = Path(swift_hydra.__file__).parent
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    scripts = ("SwiftHydra", "model", "pretrain", "dataloader", "benchmark")
    for name in (f"{script}.py" for script in scripts):
        files.setdefault(name, package.parent / name)
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name} {sha256_of(files[name])}\n".encode())
    return total.hexdigest()


@dataclass(frozen=True)
class Configuration:
    """What a frozen sweep measures, on any sets.

    Args:
        methods: {protocol: the methods measured under it}.
        seeds: seeds of splits and methods.
        max_rows: stratified subsample of larger tables, 0 for all rows.
        reference: the method that the others are compared with; every protocol has it.
    """

    methods: dict
    seeds: tuple
    max_rows: int
    reference: str

    @property
    def text(self):
        """The canonical JSON: sorted keys, no spaces, with the default settings of the class."""
        settings = {field.name: field.default for field in dataclasses.fields(SwiftHydra)}
        content = {
            "code": code_sum(),
            "max_rows": self.max_rows,
            "methods": {protocol: list(names) for protocol, names in self.methods.items()},
            "protocols": list(self.methods),
            "reference": self.reference,
            "seeds": list(self.seeds),
            "settings": settings,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self):
        """SHA-256 (hex) of :attr:`text`."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_AGAINST_LABELS = (SWIFT_HYDRA, *RECORDED)
_AGAINST_NOTHING_KNOWN = (SWIFT_HYDRA, *GROUPS["one-class-peers"])
FROZEN = Configuration(
    methods={
        **dict.fromkeys(("seen", "few", "unseen", "weak-0.05", "weak-10"), _AGAINST_LABELS),
        **dict.fromkeys(("weak-0", "one-class"), _AGAINST_NOTHING_KNOWN),
    },
    seeds=(0, 1, 2, 3, 4),
    max_rows=10000,
    reference=SWIFT_HYDRA,
)


def refuse_flags(given, fixed):
    """Refuse flags that would change what a frozen sweep measures.

    Args:
        given: words of the command line.
        fixed: names of the settings that are fixed.

    Raises:
        InputError: names these flags.
    """
    flags = {word.partition("=")[0] for word in given}
    names = [name.replace("_", "-") for name in fixed]
    wrong = [f"--{name}" for name in names if flags & {f"--{name}", f"--no-{name}"}]
    if wrong:
        raise InputError(
            f"--frozen measures one fixed configuration: leave out {', '.join(wrong)}, or measure "
            "your own without --frozen"
        )


def claim(folder, configuration, paths):
    """Assign a folder of records to this configuration, or check that it belongs to it.

    Args:
        folder: folder of the records.
        configuration: a :class:`Configuration`.
        paths: the sets' files.

    Returns:
        {set: SHA-256 of its file}.

    Raises:
        InputError: the folder has records of another configuration, sweep or file.
    """
    ledger = Path(folder) / LEDGER
    sums = {Path(path).stem: sha256_of(path) for path in paths}
    known = {}
    if ledger.exists():
        try:
            content = json.loads(ledger.read_text("utf-8"))
            before, known = str(content["configuration"]), dict(content["sets"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{ledger}: is damaged: choose another --records") from None
        if before != configuration.sha256:
            raise InputError(
                f"{folder}: holds records of the configuration {before[:12]}, this one is "
                f"{configuration.sha256[:12]} (the code is part of it): choose another --records"
            )
    elif load_records(folder):
        raise InputError(f"{folder}: holds records of another sweep: choose another --records")
    # A file without any score may have been corrected since.
    scored = {record["dataset"] for record in load_records(folder) if record["failed"] is None}
    other = {name for name, value in sums.items() if known.get(name, value) != value}
    changed = other & scored
    if changed:
        raise InputError(
            f"{folder}: holds records of other files called {', '.join(sorted(changed))}: choose "
            "another --records"
        )
    content = {"configuration": configuration.sha256, "sets": known | sums}
    write_bytes(ledger, (json.dumps(content, sort_keys=True, indent=1) + "\n").encode())
    return sums


def write_page(folder, configuration, sums):
    """Write the page of the sets, and its figures if the packages for them are installed.

    Args:
        folder: folder of the records.
        configuration: a :class:`Configuration`.
        sums: {set: SHA-256 of its file}.

    Returns:
        The paths written.
    """
    records = [record for record in load_records(folder) if _belongs(record, configuration, sums)]
    reference = configuration.reference
    found = {
        protocol: Scores(records, protocol, set(configuration.seeds), methods)
        for protocol, methods in configuration.methods.items()
    }
    why = []
    try:
        figures = draw_all({p: s for p, s in found.items() if reference in s.complete}, folder)
    except InputError as error:
        figures = []
        why = [f"No figures: {error}.", ""]
    lines = _head(records, configuration, sums) + why
    for protocol, scores in found.items():
        lines += headline(scores, reference) or _no_table(records, protocol, configuration)
        lines += without_copies(scores, reference)
        for path in figures:
            if path.stem == f"critical-difference-{protocol}":
                lines += [f"![mean ranks on {protocol}]({path.name})", ""]
    page = Path(folder) / PAGE
    write_bytes(page, ("\n".join(lines).rstrip() + "\n").encode())
    return [page, *figures]


def _belongs(record, configuration, sums):
    """Does a record belong to a cell of this page?"""
    return (
        record["method"] in configuration.methods.get(record["protocol"], ())
        and record["dataset"] in sums
        and record["seed"] in configuration.seeds
    )


def _head(records, configuration, sums):
    """The page's lines above its tables."""
    n = len(configuration.seeds) * len(sums) * sum(map(len, configuration.methods.values()))
    commits = sorted({record["git"] or "unknown" for record in records if "git" in record})
    lines = [
        "# One fixed configuration",
        "",
        "Written by `python benchmark.py --frozen DIR` from the records beside it.",
        "",
        f"- SHA-256 of the configuration: `{configuration.sha256}`",
        f"- cells: {len(records)} of {n} are recorded",
        f"- code: {', '.join(f'`{commit}`' for commit in commits) or 'none yet'}",
        "",
        "The sum is that of this text, all of it in one line: the default settings of the class, "
        "and what is measured.",
        "",
        "```",
        *textwrap.wrap(configuration.text, WIDTH, break_on_hyphens=False),
        "```",
        "",
        row_of("set", "SHA-256 of its file"),
        "|---|---|",
        *(row_of(name, f"`{sums[name]}`") for name in sorted(sums)),
        "",
    ]
    return lines + without_scores(records)


def _no_table(records, protocol, configuration):
    """The lines in place of a protocol's table if the reference lacks cells."""
    wanted = (configuration.reference, protocol)
    n = sum(key_of(record)[:2] == wanted and record["failed"] is None for record in records)
    name = title_of(configuration.reference)
    return [f"## {protocol}", "", f"No table: {name} lacks cells, it has {n} scores.", ""]
