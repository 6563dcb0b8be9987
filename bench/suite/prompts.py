"""Prompt sets and labelled sentences: packaged, from files, or from the hub; read through `datasets`.

`mini:prompts/neutral` and `mini:sentences/positive` are packaged; `hub:stanfordnlp/sst` names a data set of the hub;
anything else is a file ending in .jsonl, .json, .csv, .tsv or .txt (a text a line).
"""

import hashlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.schema import Prompt, PromptSource, UserError, canonical_json

PACKAGED = Path(str(files("bench") / "mini"))
READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text", ".gz": "json"}


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
        if source.label is not None and _field(record, source.label_column, where) not in source.label:
            continue
        text = _field(record, source.column, where)
        if not isinstance(text, str):
            raise UserError(f"{where}: row {row}: {source.column} should hold a text, got {text!r}")
        if not text.strip():
            raise UserError(f"{where}: row {row} is empty; a prompt needs at least one word")
        prompts.append(Prompt(set=name, row=row, text=text))
    if not prompts:
        raise UserError(f"{where}: no rows")
    return prompts


def texts_digest(prompts: Iterable[Prompt]) -> str:
    return hashlib.sha256(canonical_json([(p.set, p.row, p.text) for p in prompts]).encode()).hexdigest()


def _records(source: PromptSource, where: str) -> Iterable[Mapping[str, Any]]:
    if source.source.startswith("hub:"):
        return _hub_records(source, where)
    path = _path(source.source)
    if not path.is_file():
        raise UserError(f"{where}: no such file: {path}")
    reader = READERS.get(path.suffix)
    if reader is None:
        raise UserError(f"{where}: expected a file ending in {', '.join(READERS)}, got {path.name}")
    return _file_records(path, reader, where)


def _path(source: str) -> Path:
    if source.startswith("mini:"):
        return PACKAGED / f"{source.removeprefix('mini:')}.jsonl"
    return Path(source).expanduser()


def _file_records(path: Path, reader: str, where: str) -> Iterable[Mapping[str, Any]]:
    import tempfile

    import datasets

    datasets.disable_progress_bars()
    options: dict[str, Any] = {"delimiter": "\t"} if path.suffix == ".tsv" else {}
    if reader == "text":
        options["keep_linebreaks"] = False
    with tempfile.TemporaryDirectory() as cache:
        try:
            loaded = datasets.load_dataset(
                reader, data_files=str(path), split="train", cache_dir=cache, keep_in_memory=True, **options
            )
            return list(loaded)
        except Exception as error:  # the readers raise many kinds for a malformed file
            cause = error.__cause__ or error
            raise UserError(f"{where}: cannot be read: {' '.join(str(cause).split())[:200]}") from error


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


def _field(record: Mapping[str, Any], column: str, where: str) -> Any:
    value: Any = record
    for key in column.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise UserError(f"{where}: no column {column!r}; the rows have {', '.join(map(str, record))}")
        value = value[key]
    return value
