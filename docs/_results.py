"""Tables of benchmarks/results/*.md for the pages that quote them: what a page shows is what was measured, digit by digit."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
LINK = "https://github.com/scverse/annlmm/blob/main/benchmarks/results/"


def measured(file: str, section: str = "", caption: str = "", column: str = "") -> pd.DataFrame:
    """The one table under a heading that begins with `section`, after a line that begins with `caption`, with a `column`; all of it is text."""
    found, heading, line = [], "", ""
    lines = [*(RESULTS / file).read_text(encoding="utf-8").splitlines(), ""]
    for i, text in enumerate(lines):
        if text.startswith("#"):
            heading = line = text.lstrip("# ")
        elif text.startswith("| ---"):
            stop = next(j for j in range(i, len(lines)) if not lines[j].startswith("|"))
            right = heading.startswith(section) and line.startswith(caption)
            if right and (not column or column in _cells(lines[i - 1])):
                found.append(pd.DataFrame([_cells(row) for row in lines[i + 1 : stop]], columns=_cells(lines[i - 1])))
        elif text and not text.startswith("|"):
            line = text
    if len(found) != 1:
        raise ValueError(f"{file}: {len(found)} tables under {section!r}, {caption!r}, {column!r}; one is needed")
    return found[0]


def value(table: pd.DataFrame, row: str, column: str) -> str:
    """One cell, by the first column; without the marks of the page."""
    (text,) = table.loc[table.iloc[:, 0] == row, column]
    return str(text).strip("*")


def markdown(table: pd.DataFrame, *sources: str) -> str:
    """A table as Markdown, with links to where it comes from."""
    rows = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    links = ", ".join(f"[{source}]({LINK}{source})" for source in sources)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + (f"\n\nFrom {links}." if sources else "")


def machine(file: str) -> str:
    """What it was measured on: the line of the page that says so, without the command."""
    text = next(
        line for line in (RESULTS / file).read_text(encoding="utf-8").splitlines() if line.startswith("`python ")
    )
    return text.split(": ", 1)[1]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]
