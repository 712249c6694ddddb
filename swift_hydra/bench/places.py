"""Paths of the benchmark's records and pages: in the clone, or else in the current folder."""

from pathlib import Path

from swift_hydra.data.catalogue import PACKAGE

IN_CLONE = (PACKAGE.parent / "SwiftHydra.py").is_file()
ROOT = PACKAGE.parent if IN_CLONE else Path.cwd()
# Put on the path of worker processes, so that they can import the project.
IMPORT_FROM = PACKAGE.parent
SCRIPT = (PACKAGE.parent if IN_CLONE else PACKAGE) / "SwiftHydra.py"
RESULTS = ROOT / "results"
RECORDS = RESULTS / "records"
LABELS = RESULTS / "labels"  # newer records, which replace those in RECORDS
DIRTY = RESULTS / "dirty"
POLICY = RESULTS / "policy"
KEEL = RESULTS / "keel"  # records of the sets that ADBenchDatasets/build_keel.py makes
PUBLISHED = RESULTS / "published.csv"  # figures of other papers, see published.py
SPEED = RESULTS / "speed"
FROZEN_RECORDS = RESULTS / "frozen"  # and the page made from them
# Pages that may hold tables between markers; missing ones are skipped.
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md")
