"""Rows of Markdown tables."""

from swift_hydra.settings import printable


def row_of(*cells):
    """One row; an empty string is an empty cell. Texts are escaped so that they stay in it."""
    cells = [printable(cell).replace("|", r"\|") for cell in cells]
    return "".join(f"| {cell} " if cell != "" else "| " for cell in cells) + "|"


def rule_of(n_numbers):
    """The line below the heads: one column of names, then ``n_numbers`` columns of numbers."""
    return "|---|" + "---:|" * n_numbers
