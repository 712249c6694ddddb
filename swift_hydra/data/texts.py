"""Why the values of a column are texts, and whether that looks intended.

Shapes: n rows.
"""

import calendar
import re

import numpy as np

from swift_hydra.data.cells import asked_for_gap, place
from swift_hydra.data.reading import MISSING, days, form_of, is_number, number

# English names, and German ones that differ; other languages are rare in tables.
MONTHS = [*calendar.month_name[1:], *calendar.month_abbr[1:], "Sept"]
MONTHS += ["Januar", "Februar", "M\u00e4rz", "Mai", "Juni", "Juli", "Oktober", "Dezember"]
MONTHS += ["M\u00e4r", "Okt", "Dez"]
MONTH = rf"(?:{'|'.join(MONTHS)})"
# 31.12.2026, 12/31/26, 28-Jan-2026, Jan 28, 2026, with or without a time; Jan 2026, 2026 Q1.
DAY = re.compile(
    r"(?:(?:\d{4}([./-])\d{1,2}\1\d{1,2}|\d{1,2}([./-])\d{1,2}\2(?:\d{4}|\d{2}))"
    rf"|\d{{1,2}}[ ./-]*{MONTH}[ ,./-]*\d{{2,4}}"
    rf"|{MONTH}\.? \d{{1,2}},? \d{{4}})(?:[ T:,]+\d{{1,2}}:\d{{2}}.*)?"
    rf"|{MONTH}[ ,./-]*\d{{4}}|\d{{4}}[ ./-]*{MONTH}"
    r"|\d{4}[ -]*(?:Q[1-4]|W[0-5]\d)|\d{4}-(?:0[1-9]|1[0-2])",
    re.IGNORECASE,
)
LONGEST_NUMBER = 40  # characters of a number with its unit
MOST_UNITS = 12  # different units in a column; with more these are words, as streets in addresses
ALSO = 2  # other texts among numbers that are quoted beside the first
ALL_DIFFERENT = 50  # with more rows than this, it is remarkable if all values differ
ALMOST_ALL = 0.98  # share of the rows that counts as all

SAID = {
    "names": "holds another text in every row, like an id: leave it out (--drop-columns)",
    "numbers": "most cells are numbers, and yet all are taken as texts, for what is quoted: mend "
    "it, or leave it empty and give --impute median",
    "marks": "numbers whose decimal commas or thousands are not those of the table are taken as "
    "texts: write all numbers alike",
    "dates": "dates are taken as texts: --dates (dates=True) takes those like 2026-12-31 as days; "
    "or leave them out (--drop-columns)",
    "days": "most cells are dates like the first, and yet all are taken as texts, for the other: "
    "mend it, or leave it empty and give --impute median, beside --dates (dates=True)",
    "units": "numbers with a unit or a sign of their own are taken as texts, whose order is the "
    "alphabet's: write all numbers in one unit, without it",
    "spans": "times or pairs of numbers are taken as texts, whose order is the alphabet's: write a "
    "time as one number, such as seconds, and a pair as two columns",
    "words": "taken as a text, though it often stands for a gap: if nothing is known there, leave "
    "these cells empty (None, NaN)",
}


def why_texts(table, j):
    """Why a column of numbers or dates was read as texts, and the remedy; None for others."""
    told = (table.reading or {}).get("missing") is not None
    for kind, detail in kinds_of_texts(table.X[:, j], table.texts[j], table.lines, told):
        if kind in ("numbers", "marks", "dates", "days", "units", "spans"):
            return f"{detail[2:-1]}: {SAID[kind]}"  # without the parentheses around it
    return None


def kinds_of_texts(codes, texts, lines, asked):
    """Yield pairs (key of ``SAID``, detail) for a suspicious text column.

    Args:
        codes: (n,) positions in ``texts``, NaN for gaps.
        texts: the column's different texts.
        lines: n line numbers for messages, or None.
        asked: the user has said which texts are gaps.
    """
    rows = np.flatnonzero(~np.isnan(codes))
    if len(rows) < 10:
        return
    codes = codes[rows].astype(int)
    counts = np.bincount(codes, minlength=len(texts))
    numeric = np.array([is_number(text) for text in texts])
    shortened = (text if len(text) <= LONGEST_NUMBER else "" for text in texts)
    forms = [form_of(text) for text in shortened]
    units = np.array([form is not None for form in forms]) & ~numeric
    n_forms = len({form for form, unit in zip(forms, units, strict=True) if unit})
    few = 3 * n_forms <= units.sum() and n_forms <= MOST_UNITS
    if 2 * counts[numeric].sum() >= len(rows):
        kind, odd = "numbers", np.flatnonzero(~numeric[codes])
        for mark in ".,":
            if not len(odd):  # all are numbers, but under different decimal marks
                kind = "marks"
                bad = np.array([number(text, mark) is None for text in texts])
                odd = np.flatnonzero(bad[codes])
        if len(odd):
            i = odd[0]
            others = list(dict.fromkeys(codes[odd].tolist()))[1:] if kind == "numbers" else []
            more = "".join(f", {texts[code][:20]!r}" for code in others[:ALSO])
            more += ", ..." * (len(others) > ALSO)
            yield kind, f" ({_where(texts[codes[i]], int(rows[i]), lines, asked)}{more})"
        return
    iso = np.array([days(text) is not None for text in texts])
    moments = iso | np.array([bool(DAY.fullmatch(text)) for text in texts])
    if 2 * counts[moments].sum() >= len(rows):
        most = 2 * counts[iso].sum() >= len(rows)
        i = np.flatnonzero((iso if most else moments)[codes])[0]
        first = _where(texts[codes[i]], int(rows[i]), lines)
        # Where most are read by --dates, it is the others that make texts of all.
        odd = np.flatnonzero(~iso[codes]) if most else ()
        if len(odd):
            other = _where(texts[codes[odd[0]]], int(rows[odd[0]]), lines, asked)
            yield "days", f" ({first}, but {other})"
        else:
            yield "dates", f" ({first})"
        return
    if 2 * counts[units].sum() >= len(rows) and few and units.any():  # not 1a, 2b, 3c
        first = int(units.argmax())
        kind = "spans" if isinstance(forms[first], str) else "units"
        yield kind, f" ({texts[first][:40]!r})"
    elif len(rows) > ALL_DIFFERENT and (counts > 0).sum() >= ALMOST_ALL * len(rows):
        yield "names", f" ({texts[codes[0]][:40]!r})"
    words = [i for i, text in enumerate(texts) if text.casefold() in MISSING and counts[i]]
    if words and not asked:
        yield "words", f" ({texts[words[0]]!r} in {counts[words[0]]} rows)"


def _where(text, i, lines, asked=None):
    """The text of row i and its place; unless ``asked`` is None, also whether it may be a gap."""
    gap = asked_for_gap(text, asked) if isinstance(lines, list) and asked is not None else ""
    return f"{text[:40]!r} in {place(i, lines)}{gap and '; '}{gap}"
