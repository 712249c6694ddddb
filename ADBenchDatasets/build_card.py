"""Rebuild the measured columns of ``datasets.csv`` and the table in this folder's ``README.md``.

    python ADBenchDatasets/build_card.py FOLDER

FOLDER holds ADBench's own npz files; sets without a file there keep what the table says. Needed in
development only.
"""

import csv
import io
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
START, END = "<!-- table: build_card.py -->", "<!-- end of table -->"
COLUMNS = ["number", "name", "rows", "features", "anomalies", "anomaly_percent", "category"]
COLUMNS += ["duplicates", "constant_columns", "sha256", "files"]


def measure(rows, folder):
    """Fill in the measured columns of every set that is one file of ``folder``; ``rows`` are dicts
    of strings.
    """
    from download import _sha256

    from dataloader import describe, load_dataset

    for row in rows:
        files = row["files"].split()
        path = Path(folder) / Path(files[0]).name
        if len(files) == 1 and path.is_file():
            data = load_dataset(path)
            facts = describe(data.X, data.y)
            row |= {key: str(value) for key, value in facts.items()}
            row["anomaly_percent"] = f"{100 * facts['anomalies'] / facts['rows']:.2f}"
            row["sha256"] = _sha256(path)
    return rows


def table(rows):
    """The table of the README as Markdown."""
    lines = [
        "| set | rows | features | anomalies | % | category | duplicate rows | constant columns | files |"
    ]
    lines.append("|---|---:|---:|---:|---:|---|---:|---:|---|")
    for row in rows:
        files = [Path(f).stem for f in row["files"].split()]
        named = (
            ""
            if len(files) == 1 and files[0] == f"{row['number']}_{row['name']}"
            else _short(files)
        )
        cells = [row[c] for c in COLUMNS[2:9]]
        lines.append(f"| {row['number']}_{row['name']} | {' | '.join(cells)} | {named} |")
    return "\n".join(lines)


def _short(files):
    return files[0] if len(files) == 1 else f"{len(files)}: " + ", ".join(f"`{f}`" for f in files)


def write(path, text):
    """Write a text file, all or nothing."""
    handle, temporary = tempfile.mkstemp(dir=Path(path).parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
        out.write(text)
    os.chmod(temporary, 0o644)  # mkstemp makes files for the owner alone
    os.replace(temporary, path)


def main():
    """Measure, then write both files."""
    sys.path.insert(0, str(HERE.parent))
    with open(HERE / "datasets.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if len(sys.argv) > 1:
        rows = measure(rows, sys.argv[1])
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(HERE / "datasets.csv", out.getvalue())
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    before, after = readme.split(START)[0], readme.split(END)[1]
    write(HERE / "README.md", f"{before}{START}\n{table(rows)}\n{END}{after}")
    print(f"{sum(bool(row['sha256']) for row in rows)} of {len(rows)} sets measured")


if __name__ == "__main__":
    main()
