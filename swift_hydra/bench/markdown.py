"""Rows of Markdown tables."""


def row_of(*cells):
    """One row; an empty string is an empty cell."""
    return "".join(f"| {cell} " if cell != "" else "| " for cell in cells) + "|"


def rule_of(n_numbers):
    """The line under the heads: one column of names, then ``n_numbers`` columns of numbers."""
    return "|---|" + "---:|" * n_numbers
