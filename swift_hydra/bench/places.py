"""Where the benchmark's records and pages are, in a clone."""

from swift_hydra.data.catalogue import PACKAGE

ROOT = PACKAGE.parent  # of the clone
RESULTS = ROOT / "results"
RECORDS = RESULTS / "records"
SPEED = RESULTS / "speed"
# What may hold tables between markers; a page that is not there is passed over.
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md")
