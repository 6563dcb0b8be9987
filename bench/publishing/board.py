"""A board that others add to: a repository of bundles, made from a template, and the check of what a change brings.

A bundle is `submissions/NAME.anything.zip`; NAME says whose it is.  The check verifies what was changed and no more:
bundles that are on the board were checked when they came.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from bench.progress import Task
from bench.schema import UserError
from bench.submissions.findings import Report
from bench.submissions.verify import verify
from bench.terminal import shown

BUNDLES = "submissions"
NAME = re.compile(rf"{BUNDLES}/([A-Za-z0-9-]+)(\.[A-Za-z0-9_-]+)*\.zip")
SHOWN = 20  # rows that do not match


def create(folder: Path) -> list[Path]:
    """Write a board's repository into a new or empty folder; the files written.  Raises UserError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: expected a new or an empty folder")
    contents = dict(_template(files("bench.publishing") / "template"))
    contents[f"{BUNDLES}/.gitkeep"] = b""
    contents["requirements.txt"] = f"lerpbench=={version('lerpbench')}\n".encode()
    try:
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return [folder / name for name in sorted(contents)]


def _template(place: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Path in the repository -> content.  `github` is the repository's `.github`."""
    for entry in place.iterdir():
        name = prefix + (".github" if not prefix and entry.name == "github" else entry.name)
        if entry.is_dir():
            yield from _template(entry, f"{name}/")
        else:
            yield name, entry.read_bytes()


@dataclass
class Checked:
    """One changed file: the report on it where it is a bundle that is there, and what is wrong beside it."""

    path: str
    wrong: list[str] = field(default_factory=list)
    report: Report | None = None

    @property
    def right(self) -> bool:
        return not self.wrong and (self.report is None or self.report.verified)


def check(root: Path, changed: Sequence[str], author: str, sample: int, device: str, task: Task) -> list[Checked]:
    """What a change of these files (paths from `root`) by this author brings."""
    return [_checked(root, path, author, sample, device, task) for path in changed]


def _checked(root: Path, path: str, author: str, sample: int, device: str, task: Task) -> Checked:
    found = Checked(path)
    named = NAME.fullmatch(path)
    if named is None:
        found.wrong.append(f"not a bundle's name; {BUNDLES}/{author}.mini.zip would be one")
        return found
    if named[1].lower() != author.lower():
        found.wrong.append(f"the name says it is {named[1]}'s, the change is by {author}")
    if (root / path).is_symlink():
        found.wrong.append("a link, not a file")
    elif (root / path).exists():
        try:
            found.report = verify(root / path, sample, None, device, task)
        except UserError as error:
            found.wrong.append(str(error))
    return found


def describe(found: Sequence[Checked]) -> str:
    """The check as Markdown.  Texts of a bundle stay inside code."""
    return "\n".join(line for checked in found for line in _lines(checked)) or "Nothing was changed.\n"


def _lines(checked: Checked) -> Iterator[str]:
    report = checked.report
    verdict = "is right" if checked.right else "is refused"
    yield f"### {_code(checked.path)} {verdict if report or checked.wrong else 'was taken away'}\n"
    yield from (f"- wrong: {_code(text)}" for text in checked.wrong)
    if report is None:
        return
    if report.mismatches:
        yield "\n| does not match |\n|---|"
        yield from (f"| {_code(str(mismatch))} |" for mismatch in report.mismatches[:SHOWN])
        if (more := len(report.mismatches) - SHOWN) > 0:
            yield f"| and {more} more |"
    for title, rows in (("proven", report.checked), ("not proven", report.skipped)):
        if rows:
            yield f"\n<details{'' if title == 'proven' else ' open'}><summary>{title}: {len(rows)}</summary>\n"
            yield "| | |\n|---|---|"
            yield from (f"| {_code(name)} | {_code(what)} |" for name, what in rows)
            yield "\n</details>\n"


def _code(text: str) -> str:
    """As code in a table's cell: no markup of the text is one."""
    plain = shown(text).replace("`", "'").replace("|", "¦")
    return f"`{plain}`"
