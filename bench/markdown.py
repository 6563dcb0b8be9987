"""Text and tables in Markdown."""

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDEST = 10**6  # characters of a line, so that no cell is broken


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table, a line a row; cells are text, so what looks like markup in them is escaped."""
    from rich import box
    from rich.table import Table

    made = Table(*map(escaped, head), box=box.MARKDOWN)
    for row in rows:
        made.add_row(*map(escaped, row))
    return printed(made)


def printed(made: "Table") -> str:
    """A table of rich's whose box is MARKDOWN, as text."""
    from rich.console import Console

    out = StringIO()
    Console(file=out, width=WIDEST, markup=False, emoji=False, highlight=False, color_system=None).print(made)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip()


def escaped(text: object) -> str:
    """Text in a table's cell or a line of Markdown: no markup, no line break."""
    plain = " ".join(str(text).split())
    for character in "\\`*_[]|":
        plain = plain.replace(character, f"\\{character}")
    return plain.replace("<", "&lt;")
