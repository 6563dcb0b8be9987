"""The little Markdown that METHODOLOGY.md uses -> HTML: headings, paragraphs, lists, tables, code, emphasis, links."""

import re
from html import escape

INLINE = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"),
    (re.compile(r"\[([^\]]+)\]\((#[a-z0-9-]+|https://[^)\s]+)\)"), r'<a href="\2">\1</a>'),
)


def to_html(text: str) -> str:
    """Blocks are separated by empty lines; all text is escaped first."""
    return "\n".join(_block(block) for block in re.split(r"\n\s*\n", text.strip()) if block.strip())


def _block(block: str) -> str:
    lines = block.strip().split("\n")
    heading = re.match(r"(#{1,4}) (.+)", lines[0])
    if heading:
        level, title = len(heading[1]), heading[2]
        rest = "\n".join(lines[1:])
        return f'<h{level} id="{anchor(title)}">{_inline(title)}</h{level}>' + (_block(rest) if rest.strip() else "")
    if lines[0].startswith("- "):
        items = re.split(r"\n- ", "\n" + block.strip())[1:]
        return "<ul>" + "".join(f"<li>{_inline(' '.join(item.split()))}</li>" for item in items) + "</ul>"
    if lines[0].startswith("|"):
        return _table(lines)
    return f"<p>{_inline(' '.join(line.strip() for line in lines))}</p>"


def _table(lines: list[str]) -> str:
    rows = [[_inline(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in lines]
    head = "".join(f'<th scope="col">{cell}</th>' for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows[2:])
    box = '<div class="scroll" tabindex="0" role="region" aria-label="table">'
    return f"{box}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _inline(text: str) -> str:
    found = escape(text, quote=False)
    for pattern, replacement in INLINE:
        found = pattern.sub(replacement, found)
    return found
