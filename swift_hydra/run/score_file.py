"""Score a table of any length with a trained detector: ``python SwiftHydra.py score``.

    python SwiftHydra.py score --checkpoint results/47_yeast/seen/seed0/checkpoint.pt --data new.csv --out scores.csv
    python SwiftHydra.py score --checkpoint C --data new.csv --id-column customer --explain 3

Rows are read, scored and written block by block: memory is that of one block. The output has one
line per row, in the order of the input: the row's number (from 0) or its id, its score, 1 where the
score is above the checkpoint's threshold, and with ``--explain K`` the K features that raise the
score of such a row most.
"""

import contextlib
import csv
import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from swift_hydra.data.files import stream_table
from swift_hydra.files import write_file
from swift_hydra.settings import InputError, check_range, parse_config, setting

SHOWN = 5  # drifting columns that are named
DRIFT = 0.01  # share of rows outside the training range that is worth a warning


@dataclass
class ScoreConfig:
    checkpoint: str = setting(
        None, "checkpoint.pt of a run of SwiftHydra.py, or what SwiftHydra.save wrote"
    )
    data: str = setting(
        None, "rows to score: a .csv, .parquet or .npz with the columns of the training table"
    )
    out: str = setting("scores.csv", "where the scores are written")
    id_column: str | None = setting(None, "column that names the rows (default: their number)")
    explain: int = setting(0, "features to name for every row above the threshold")
    quiet: bool = setting(False, "print only warnings and errors")


def main(argv, load):
    config = parse_config(ScoreConfig, __doc__.splitlines()[0], argv, prog="SwiftHydra.py score")
    for name in ("checkpoint", "data"):
        if getattr(config, name) is None:
            raise InputError(
                f"{name}: is missing: python SwiftHydra.py score --checkpoint C --data new.csv"
            )
    detector = load(config.checkpoint)
    check_range("explain", config.explain, 0, detector.n_features_in_)
    preparation, (low, high) = detector.preparation_, detector.range_
    slack = 1e-4 * (high - low)  # a text file's rounding is no drift
    first = np.searchsorted(
        preparation.groups, np.arange(detector.n_features_in_)
    )  # of the columns made from one
    drift, n_rows, n_above = np.zeros(detector.n_features_in_, dtype=np.int64), 0, 0
    start = time.perf_counter()

    def write(file):
        nonlocal n_rows, n_above, drift
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        table = csv.writer(text)
        named = [
            name
            for i in range(config.explain)
            for name in (f"feature_{i + 1}", f"raises_score_by_{i + 1}")
        ]
        table.writerow([config.id_column or "row", "score", "anomaly", *named])
        blocks = stream_table(
            config.data,
            preparation.columns,
            detector.n_features_in_,
            preparation.texts,
            config.id_column,
            detector.chunk_rows(),
        )
        with tqdm(unit=" rows", unit_scale=True, disable=True if config.quiet else None) as bar:
            for rows, ids in blocks:
                X = preparation.transform(rows)
                score = detector.score_prepared(X)
                above = score > detector.threshold_
                outside = (X < low - slack) | (X > high + slack)
                drift += (
                    np.logical_or.reduceat(outside, first, axis=1) | preparation.unknown(rows)
                ).sum(0)
                blank = [""] * len(named)
                lines = [
                    [i, f"{s:.9g}", int(a), *blank]
                    for i, s, a in zip(ids, score.tolist(), above.tolist(), strict=True)
                ]
                if config.explain and above.any():
                    features, raised = detector.explain(
                        rows.take(np.flatnonzero(above)), config.explain
                    )
                    for row, names, values in zip(
                        np.flatnonzero(above), features, raised, strict=True
                    ):
                        lines[row][3:] = [
                            cell
                            for pair in zip(names, values, strict=True)
                            for cell in (pair[0], f"{pair[1]:.4g}")
                        ]
                table.writerows(lines)
                n_rows, n_above = n_rows + len(X), n_above + int(above.sum())
                bar.update(len(X))
        text.flush()
        text.detach()

    out = Path(config.out)
    if not out.parent.is_dir():
        raise InputError(f"{out}: its folder does not exist: create it or choose another --out")
    with contextlib.suppress(BrokenPipeError):
        write_file(out, write)
    for j in np.argsort(-drift, kind="stable")[:SHOWN]:
        if drift[j] > max(DRIFT * n_rows, 3):
            share, name = 100 * drift[j] / n_rows, detector.feature_names()[j]
            known = (
                f"{len(preparation.texts[j])} texts"
                if j in preparation.texts
                else (f"{low[first[j]]:.4g} to {high[first[j]]:.4g}")
            )
            print(
                f"warning: drift: {share:.1f} % of the rows are outside the training range of column {name!r} "
                f"({known})",
                file=sys.stderr,
            )
    if not config.quiet:
        seconds = time.perf_counter() - start
        print(
            f"{n_rows} rows scored in {seconds:.1f} s, {n_above} above the threshold {detector.threshold_:.4g}; "
            f"written to {out}"
        )
