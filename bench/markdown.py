"""Text and tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table, a line a row; cells are text, so what looks like markup in them is escaped."""
    lines = [map(escaped, head), ["---"] * len(head), *(map(escaped, row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escaped(text: object) -> str:
    """Text in a table's cell or a line of Markdown: no markup, no line break."""
    plain = " ".join(str(text).split())
    for character in "\\`*_[]|":
        plain = plain.replace(character, f"\\{character}")
    return plain.replace("<", "&lt;")
