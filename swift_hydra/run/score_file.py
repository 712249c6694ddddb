"""Score a table of any length with a trained detector: ``python SwiftHydra.py score``.

    python SwiftHydra.py score --checkpoint results/47_yeast/seen/seed0/checkpoint.pt --data new.csv
    python SwiftHydra.py score --checkpoint C --data new.csv --id-column customer --explain 3

Rows are read, scored and written block by block, so that memory holds one block. The output has one
line per row, in the order of the input: the row's number (from 0) or its id, its score, 1 if the
score is above the threshold, with ``--p-values`` how improbable so high a score is for a normal
row, and with ``--explain K`` the K features that raise the score of a row above the threshold most.
"""

import contextlib
import csv
import io
import itertools
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from swift_hydra.data.files import How, stream_table
from swift_hydra.data.learned_columns import Tally
from swift_hydra.data.reading import Reading, number
from swift_hydra.files import in_place, part, real_place, write_file
from swift_hydra.settings import (
    InputError,
    Place,
    advised,
    check_range,
    check_settings,
    first_line,
    flag_values,
    parse_config,
    printable,
    setting,
)

# Characters with which a formula starts in spreadsheets, also in full-width East Asian forms.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
STARTS = re.escape("".join(FORMULA).replace("\t", ""))
# A formula behind what parts cells where numbers have decimal commas; no quote is written for it.
INNER = re.compile(rf"(?<=[;\t])(?=[^\S\t]*[{STARTS}])(?![^\S\t]*[+-]?[\d.,]+(?:[;\t]|$))")
NO_TEXT = (".gz", ".zip", ".parquet", ".npz", ".npy", ".xlsx", ".xls", ".pt", ".onnx")


@dataclass
class ScoreOptions(Reading):
    """Settings of the command ``score``."""

    checkpoint: Place = setting(
        None,
        "checkpoint.pt or student.onnx of a run, or what SwiftHydra.save or export wrote",
    )
    data: Place = setting(
        None,
        "rows to score: a .csv, .parquet or .npz with the columns of the training table",
    )
    out: Place = setting("scores.csv", "where the scores are written")
    id_column: str | None = setting(None, "column that names the rows (default: their number)")
    explain: int = setting(0, "features to name for every row above the threshold")
    p_values: bool = setting(False, "a column more: how improbable the score is for a normal row")
    false_alarms: float | None = setting(
        None,
        "threshold that this share of normal rows may be above (default: the training's)",
        low=0,
        high=0.99,
    )
    verify: float | None = setting(
        None, "of a --fast checkpoint: share of rows that the detector scores again", low=0, high=1
    )
    force: bool = setting(False, "replace a file at --out, whatever it holds")
    quiet: bool = setting(False, "print only warnings and errors")


def scored_lines(detector, blocks, explain, tally, p_values=False):
    """Score blocks of rows; yields for each block the cells of its lines.

    Args:
        detector: a fitted estimator.
        blocks: pairs of a Table and its rows' ids.
        explain: number of features to name for every row above the threshold.
        tally: a :class:`data.learned_columns.Tally` that counts the rows.
        p_values: add a column of p-values.
    """
    first = 4 if p_values else 3
    blank = [""] * (2 * explain)
    for table, ids in blocks:
        X = detector.columns_.prepare(table)
        score = detector.score_prepared(X)
        above = np.flatnonzero(score > detector.threshold_)
        tally.add(table, X, len(above))
        flags = np.zeros(len(score), dtype=int)
        flags[above] = 1
        lines = [
            [i, f"{value:.9g}", flag, *blank]
            for i, value, flag in zip(ids, score.tolist(), flags.tolist(), strict=True)
        ]
        if p_values:
            for line, value in zip(lines, detector.p_values_of(score).tolist(), strict=True):
                line.insert(3, f"{value:.6g}")
        if explain and len(above):
            features, raised = detector.explain(table.take(above), explain)
            for row, names, values in zip(above, features, raised, strict=True):
                pairs = zip(names, values, strict=True)
                lines[row][first:] = [
                    cell for name, value in pairs for cell in (name, f"{value:.4g}")
                ]
        yield lines


def main(argv, load):
    """Run the command ``score``.

    Args:
        argv: arguments after ``score``.
        load: a function from a checkpoint's path to a fitted estimator.
    """
    prog = f"{Path(sys.argv[0]).name} score"
    (config,) = parse_config([ScoreOptions], first_line(__doc__), argv, prog=prog)
    for name in ("checkpoint", "data"):
        if getattr(config, name) is None:
            raise InputError(
                f"{name}: is missing: python SwiftHydra.py score --checkpoint C --data new.csv"
            )
    check_settings(config)
    if config.id_column in _own_columns(config):
        raise InputError(
            f"id_column={config.id_column!r}: the scores have a column of that name: rename it in "
            f"{config.data}"
        )
    detector = _as_asked(load(config.checkpoint), config)
    columns = detector.columns_
    tally = Tally(columns)
    preparation = columns.preparation
    training = (preparation.reading, preparation.named, columns.held)
    how = How(config, detector.settings_["dates"], *training)
    blocks = stream_table(
        config.data,
        columns.given_names,
        columns.n_features,
        columns.texts,
        config.id_column,
        detector.default_chunk_rows(),
        how,
    )
    start = time.perf_counter()
    blocks = scored_lines(detector, blocks, config.explain, tally, config.p_values)
    blocks = _advised(blocks)
    blocks = itertools.chain([next(blocks)], blocks)  # mistakes in the data come first

    def write(file):
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        output = csv.writer(text)
        output.writerow([harmless(config.id_column or "row"), *_own_columns(config)])
        hide = True if config.quiet else None
        with tqdm(unit=" rows", unit_scale=True, disable=hide) as bar:
            for lines in blocks:
                output.writerows([harmless(cell) for cell in line] for line in lines)
                bar.update(len(lines))
        text.flush()
        text.detach()

    with contextlib.suppress(BrokenPipeError):
        _write_scores(config, write)
    _warn(detector, tally)
    if not config.quiet:
        _say(tally, time.perf_counter() - start, detector.threshold_, config.out)


def _warn(detector, tally):
    """Print what is unusual about the rows as a whole."""
    said = [tally.emptied(), tally.unmet(), tally.fall_together(), tally.stuck()]
    said += tally.drift(len(detector.normal_scores_))
    said += [tally.moved(), detector.relations_broken(tally)]
    said.append(detector.unlike_training(tally.n_above, tally.n_rows))
    for line in filter(None, said):
        print(printable(f"warning: {line}"), file=sys.stderr)


def _say(tally, seconds, threshold, out):
    """Print the last line, on stderr if the scores themselves may go to stdout."""
    line = (
        f"{tally.n_rows} rows scored in {seconds:.1f} s, {tally.n_above} above the threshold "
        f"{threshold:.4g}; written to {out}"
    )
    print(printable(line), file=sys.stderr if in_place(out) else sys.stdout)


def _own_columns(config):
    """Names of the output's columns after the first, which names the rows."""
    p_value = ["p_value"] if config.p_values else []
    numbers = range(1, config.explain + 1)
    named = [name for i in numbers for name in (f"feature_{i}", f"raises_score_by_{i}")]
    return ["score", "anomaly", *p_value, *named]


def _advised(blocks):
    """The blocks; errors about their rows are adapted to this command.

    A message may suggest a flag that only training has: scoring uses what was set there.
    """
    try:
        yield from blocks
    except InputError as error:
        own = {"--" + name.replace("_", "-") for name in flag_values(ScoreOptions())}
        words = "set in training, score does as was done there: mend these rows or train again"
        raise InputError(advised(error, own, words)) from error


def _as_asked(detector, config):
    """Apply the options of the command to the detector; returns it."""
    check_range("explain", config.explain, 0, detector.n_features_in_)
    if config.verify is not None:
        if detector.student_ is None:
            raise InputError(
                f"verify={config.verify:g}: {config.checkpoint} is no checkpoint of --fast, which "
                "has both: leave --verify out"
            )
        detector.set_verify(config.verify)
    if config.false_alarms is not None:
        detector.set_false_alarms(config.false_alarms)
    elif config.p_values:
        detector.tell_if_not_left_out()
    return detector


def harmless(cell):
    """A cell that spreadsheets do not run: a text that starts like a formula gets an apostrophe.

    So does the part behind a semicolon or a tab, which begins a cell in many countries.
    """
    if not isinstance(cell, str) or number(cell) is not None:
        return cell
    return "'" * _starts_formula(cell) + INNER.sub("'", cell)


def _starts_formula(text):
    return text[:1] in FORMULA or text.lstrip()[:1] in FORMULA


def _write_scores(config, write):
    """Write the output file; without ``--force`` only replace a file of scores of the same rows."""
    if config.out == "-":
        raise InputError("--out -: would be a file of that name: give /dev/stdout for the output")
    out = real_place(config.out)
    if os.path.basename(config.out) in ("", ".", "..") and not out.is_dir():
        raise InputError(
            f"{config.out}: is a folder that does not exist: create it and name a file in it with "
            "--out"
        )
    if not out.parent.is_dir():
        raise InputError(f"{out}: its folder does not exist: create it or choose another --out")
    for given in (config.data, config.checkpoint):
        if out.exists() and out.samefile(given):
            raise InputError(f"{out}: is what is read, it would be lost: choose another --out")
    if out.suffix.lower() in NO_TEXT:
        raise InputError(
            f"{out}: scores are written as plain text: leave {out.suffix} out of the name"
        )
    if config.force or in_place(out) or not out.is_file() or out.stat().st_size == 0:
        write_file(out, write)
        return
    # Without ids, scores identify the rows: row numbers are the same in every table.
    n_telling = 1 if config.id_column else 2
    with part(out, write) as name:
        old, new = (_telling(path, n_telling) for path in (out, name))
        if any(a != b for a, b in itertools.zip_longest(old, new)):
            raise InputError(
                f"{out}: is there and holds something else than scores of these rows"
                f"{'' if config.id_column else ' by this checkpoint'}: choose another --out or "
                "give --force"
            )
        os.replace(name, out)


def _telling(path, n_telling):
    """Yield the first cells of every line, which identify the rows whose scores a file holds.

    Yields None for a file with other columns than this command writes, or that is not CSV.
    """
    with (
        open(path, newline="", encoding="utf-8", errors="replace") as file,
        contextlib.suppress(csv.Error),
    ):
        lines = csv.reader(file)
        header = next(lines, [])
        ours = header[1:3] == ["score", "anomaly"] and all(
            name == "p_value" or re.fullmatch(r"(feature|raises_score_by)_\d+", name)
            for name in header[3:]
        )
        yield header[:1] if ours else None
        for line in lines if ours else ():
            yield line[:n_telling]
        return
    yield None
