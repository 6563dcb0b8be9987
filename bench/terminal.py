"""Text from outside on a terminal: what a database, a bundle or a suite says is read there and does nothing else."""

LONGEST = 600  # characters of one line


def printable(text: str) -> str:
    """The text with every character that is not printed (escape, newline, reordering) as its name: `\\x1b`, `\\n`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: object) -> str:
    """Anything as one line that a terminal can show; a long one without its middle."""
    line = str(text)
    if len(line) > LONGEST:
        line = f"{line[: LONGEST * 2 // 3]} [... {len(line) - LONGEST:,} characters ...] {line[-(LONGEST // 3) :]}"
    return printable(line)
