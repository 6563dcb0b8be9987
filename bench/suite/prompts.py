"""Prompt sets and labelled sentences: packaged, from files, or, through `datasets`, from the hub.

`mini:prompts/neutral` and `mini:sentences/positive` are packaged; `hub:stanfordnlp/sst` names a data set of the hub,
`hub:OWNER/NAME/PATH` a file of a data set's or a model's repository there; anything else is a file here.  Files end in
.jsonl, .json, .csv, .tsv or .txt (a text a line), or one of these and .gz.
"""

import csv
import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from bench.registry import explain
from bench.schema import Prompt, PromptSource, UserError, canonical_json

PACKAGED = Path(str(files("bench") / "mini"))


def load_prompts(sets: Mapping[str, PromptSource], limit: int | None = None) -> list[Prompt]:
    """All sets in order, each cut to `limit` rows.  Raises UserError for a missing file, column or an empty text."""
    return [prompt for name, source in sets.items() for prompt in load_set(name, source, limit)]


def load_set(name: str, source: PromptSource, limit: int | None = None) -> list[Prompt]:
    """One set; a prompt's row is its place in the source, before labels are filtered."""
    where = f"prompts {name} ({source.source})"
    wanted = min((n for n in (limit, source.limit) if n is not None), default=None)
    prompts: list[Prompt] = []
    for row, record in enumerate(_records(source, where)):
        if wanted is not None and len(prompts) == wanted:
            break
        if source.label is not None and _label(record, source, where) not in source.label:
            continue
        text = _field(record, source.column, where)
        if not isinstance(text, str):
            raise UserError(f"{where}: row {row}: {source.column} should hold a text, got {text!r}")
        if not text.strip():
            raise UserError(f"{where}: row {row} is empty; a prompt needs at least one word")
        try:
            prompts.append(Prompt(set=name, row=row, text=text))
        except ValidationError as error:
            raise explain(error, f"{where}: row {row}") from error
    if not prompts:
        raise UserError(f"{where}: no rows")
    return prompts


def texts_digest(prompts: Iterable[Prompt]) -> str:
    return hashlib.sha256(canonical_json([(p.set, p.row, p.text) for p in prompts]).encode()).hexdigest()


def _records(source: PromptSource, where: str) -> Iterable[Mapping[str, Any]]:
    if source.source.startswith("hub:") and source.source.count("/") < 2:
        return _hub_records(source, where)
    path = _path(source.source, where)
    if not path.is_file():
        raise UserError(f"{where}: no such file: {path}")
    kind = path.suffixes[-2:-1] if path.suffix == ".gz" else path.suffixes[-1:]
    reader = READERS.get("".join(kind))
    if reader is None:
        raise UserError(f"{where}: expected a file ending in {', '.join(READERS)}, each perhaps .gz, got {path.name}")
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            return list(reader(file))
    except (OSError, EOFError, ValueError, csv.Error, RecursionError) as error:
        raise UserError(f"{where}: cannot be read: {' '.join(str(error).split())[:200]}") from error


def _path(source: str, where: str) -> Path:
    if source.startswith("mini:"):
        return PACKAGED / f"{source.removeprefix('mini:')}.jsonl"
    if source.startswith("hub:"):
        return _hub_file(source.removeprefix("hub:"), where)
    return Path(source).expanduser()


def _json(file: TextIO) -> Iterator[Mapping[str, Any]]:
    """One object a line, or one list of objects.  Raises ValueError naming the line."""
    text = file.read()
    if text.lstrip().startswith("["):
        yield from (_object(value, f"entry {i}") for i, value in enumerate(json.loads(text)))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield _object(json.loads(line), f"line {number}")
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg} at column {error.colno}") from error


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected an object with columns, got {str(value)[:40]!r}")
    return value


def _table(file: TextIO, dialect: str) -> Iterator[Mapping[str, Any]]:
    """Every cell is text, `NA` and empty ones too; labels are numbers again where they are compared."""
    for row in csv.DictReader(file, dialect=dialect, strict=True):
        if None in row:
            raise ValueError(f"a row has more cells than the header: {next(iter(row.values()))!r} ...")
        yield row


READERS: Mapping[str, Callable[[TextIO], Iterator[Mapping[str, Any]]]] = {
    ".jsonl": _json,
    ".json": _json,
    ".csv": lambda file: _table(file, "excel"),
    ".tsv": lambda file: _table(file, "excel-tab"),
    ".txt": lambda file: ({"text": line.rstrip("\r\n")} for line in file),
}


def _hub_records(source: PromptSource, where: str) -> Iterable[Mapping[str, Any]]:
    import datasets

    name, _, revision = source.source.removeprefix("hub:").partition("@")
    try:
        found: Iterable[Mapping[str, Any]] = datasets.load_dataset(
            name, source.config, split=source.split, revision=revision or None
        )
        return found
    except Exception as error:  # unreachable, unknown, gated: each means that the data are not here
        raise UserError(
            f"{where}: the hub could not give it ({type(error).__name__}); check the name and the network, or "
            "download it and give the file"
        ) from error


def _hub_file(name: str, where: str) -> Path:
    """The file OWNER/NAME[@REVISION]/PATH, of a data set or else of a model."""
    import huggingface_hub

    owner, repository, path = name.split("/", 2)
    repository, _, revision = repository.partition("@")
    reason = ""
    for kind in ("dataset", "model"):
        try:
            return Path(
                huggingface_hub.hf_hub_download(
                    f"{owner}/{repository}", path, repo_type=kind, revision=revision or None
                )
            )
        except Exception as error:  # as above
            reason = type(error).__name__
    raise UserError(f"{where}: the hub could not give it ({reason}); check the name and the network, or give a file")


def _label(record: Mapping[str, Any], source: PromptSource, where: str) -> Any:
    value = _field(record, source.label_column, where)
    return int(value) if isinstance(value, str) and value.strip().lstrip("-").isdecimal() else value


def _field(record: Mapping[str, Any], column: str, where: str) -> Any:
    value: Any = record
    for key in column.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise UserError(f"{where}: no column {column!r}; the rows have {', '.join(map(str, record))}")
        value = value[key]
    return value
