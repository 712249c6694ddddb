"""Where the benchmark's records and pages are: in the clone, or else in the current folder."""

from pathlib import Path

from swift_hydra.data.catalogue import PACKAGE

IN_CLONE = (PACKAGE.parent / "SwiftHydra.py").is_file()
ROOT = PACKAGE.parent if IN_CLONE else Path.cwd()
# What is on the path of a worker process so that it can import the project.
IMPORT_FROM = PACKAGE.parent
SCRIPT = (PACKAGE.parent if IN_CLONE else PACKAGE) / "SwiftHydra.py"
RESULTS = ROOT / "results"
RECORDS = RESULTS / "records"
LABELS = RESULTS / "labels"  # newer than RECORDS
DIRTY = RESULTS / "dirty"
POLICY = RESULTS / "policy"
KEEL = RESULTS / "keel"  # of the sets of ADBenchDatasets/build_keel.py
PUBLISHED = RESULTS / "published.csv"  # figures of other papers, see published.py
SPEED = RESULTS / "speed"
FROZEN_RECORDS = RESULTS / "frozen"  # and the page made from them
# What may hold tables between markers; a page that is not there is passed over.
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md")
