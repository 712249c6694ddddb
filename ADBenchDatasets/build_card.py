"""Rebuild the measured columns of ``datasets.csv`` and the table in this folder's ``README.md``.

    python ADBenchDatasets/build_card.py FOLDER

FOLDER holds ADBench's own npz files; sets without a file there keep what the table says. Without
FOLDER both files are written anew from ``datasets.csv``.
"""

import csv
import hashlib
import io
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
START = "<!-- table: build_card.py -->"
END = "<!-- end of table -->"
COLUMNS = ["number", "name", "rows", "features", "anomalies", "anomaly_percent", "category"]
COLUMNS += ["duplicates", "constant_columns", "sha256", "files"]
HEADINGS = ["set", "rows", "features", "anomalies", "%", "category"]
HEADINGS += ["duplicate rows", "constant columns", "files"]
ALIGNED = ["---", "---:", "---:", "---:", "---:", "---", "---:", "---:", "---"]


def measure(rows, folder):
    """Fill in the measured columns of every set that is one file of a folder.

    Args:
        rows: dicts of texts, one per set; they are changed.
        folder: of ADBench's npz files.

    Returns:
        The rows.
    """
    from swift_hydra.dataloader import describe, load_dataset
    from swift_hydra.settings import InputError

    if not Path(folder).is_dir():
        raise InputError(f"{folder}: is no folder: name the one that holds ADBench's npz files")
    for row in rows:
        files = row["files"].split()
        path = Path(folder) / Path(files[0]).name
        if len(files) == 1 and path.is_file():
            data = load_dataset(path)
            facts = describe(data.X, data.y)
            row |= {key: str(value) for key, value in facts.items()}
            row["anomaly_percent"] = f"{100 * facts['anomalies'] / facts['rows']:.2f}"
            row["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return rows


def table(rows):
    """The table of the README as Markdown."""
    lines = [_line(HEADINGS), "|" + "|".join(ALIGNED) + "|"]
    for row in rows:
        name = f"{row['number']}_{row['name']}"
        lines.append(_line([name, *(row[column] for column in COLUMNS[2:9]), _files(row, name)]))
    return "\n".join(lines)


def _line(cells):
    return f"| {' | '.join(cells)} |"


def _files(row, name):
    """What the table says of a set's files: nothing where there is one of the set's own name."""
    stems = [Path(file).stem for file in row["files"].split()]
    if stems == [name]:
        return ""
    if len(stems) == 1:
        return stems[0]
    return f"{len(stems)}: " + ", ".join(f"`{stem}`" for stem in stems)


def main():
    """Measure, then write both files."""
    from swift_hydra.files import write_bytes

    with open(HERE / "datasets.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if len(sys.argv) > 1:
        rows = measure(rows, sys.argv[1])
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(HERE / "datasets.csv", out.getvalue().encode())
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    before = readme.split(START)[0]
    after = readme.split(END)[1]
    text = f"{before}{START}\n{table(rows)}\n{END}{after}"
    write_bytes(HERE / "README.md", text.encode())
    print(f"{sum(bool(row['sha256']) for row in rows)} of {len(rows)} sets measured")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    from swift_hydra.settings import run_main

    run_main(main)
