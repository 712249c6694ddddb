# make run    create .venv, install, train on the embedded UCI Yeast set, draw the figures, print its AUC-ROC
# make test   the test suite      make lint   ruff      DATASET=path make run   another dataset
PYTHON ?= python3
DATASET ?= 47_yeast

.PHONY: run test lint clean

run: .venv/installed
	.venv/bin/python SwiftHydra.py $(DATASET) --plot

test: .venv/installed-dev
	.venv/bin/python -m pytest -q -n 2 --dist worksteal

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# The stamps make a second call reuse the environment; editing what is required installs again.
.venv/installed: requirements.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-dev: pyproject.toml .venv/installed
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf .venv
