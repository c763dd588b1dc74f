"""The one writer of tables for people, who open them in spreadsheets."""

from pathlib import Path

import pandas as pd

from thawmap.files.atomic import write_text

_FORMULA = ("=", "+", "-", "@", "\t", "\n")  # what a spreadsheet takes for the beginning of something to compute


def write_table(path: Path, table: pd.DataFrame, *, float_format: str | None = None) -> None:
    """Write a table as CSV, in which numbers stay numbers and no text is a formula.

    A text that a spreadsheet would compute begins with an apostrophe, which spreadsheets take as "this is a text".
    """
    quoted = table.copy()
    for name in table.select_dtypes(exclude=["number", "bool"]):
        quoted[name] = table[name].astype(object).map(_as_text)
    write_text(path, quoted.rename(columns=_as_text).to_csv(index=False, float_format=float_format))


def _as_text(value: object) -> object:
    """Return a value, with an apostrophe before a text that is a formula."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r", "\n")  # which a CSV puts in quotes, and the other it does not
    return f"'{text}" if text.startswith(_FORMULA) else text
