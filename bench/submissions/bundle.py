"""One suite of a database as a file that others can check: a zip with `results.db` and `manifest.json`, nothing else.

The database holds that suite's rows alone, under the ids that they have at home; the manifest says in advance what a
reader will find.  Equal databases make equal bytes.  Bundles from elsewhere are hostile: `unpack` believes no name and
no size.
"""

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from bench.registry import explain
from bench.schema import Suite, UserError, Value, canonical_json
from bench.store.extract import copy_suite
from bench.store.inspect import faults
from bench.store.read import Reader
from bench.store.schema import FORMAT
from bench.store.values import point_name
from bench.suite.points import require_countable

DATABASE, MANIFEST = "results.db", "manifest.json"
SUFFIX = ".zip"
MAX_BYTES = {DATABASE: 64 * 2**30, MANIFEST: 4 * 2**20}
MAX_RATIO = 200  # bytes out for a byte in; real databases stay below 20
CHUNK = 2**20
BORN = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


class FileRecord(Value):
    sha256: str
    bytes: int


class Manifest(Value):
    """What a bundle claims to hold.  `checkpoints`: the suite's names -> SHA-256 of the bytes that were mixed."""

    format: Literal["lerpbench submission 1"] = "lerpbench submission 1"
    suite: str
    engines: tuple[str, ...]
    schema_format: int
    commits: tuple[str, ...]
    environments: dict[str, Any]
    checkpoints: dict[str, str]
    counts: dict[str, int]
    files: dict[str, FileRecord] = {}


# ------------------------------------------------------------------------------------------------------ making one


def submit(database: Path, suite: str | None, bundle: Path) -> Manifest:
    """Bundle one suite of a database.  Raises UserError where it is unknown, ambiguous or not finished."""
    with closing(Reader.open(database)) as home, tempfile.TemporaryDirectory() as folder:
        name = _chosen(home, suite, database)
        if bundle.is_dir() or bundle.resolve() == database.resolve():
            raise UserError(f"{bundle}: expected the name of a new file, for instance {name}.lerpbench.zip")
        path = Path(folder) / DATABASE
        copy_suite(home, name, path)
        with closing(Reader.open(path)) as store:
            if gaps := missing(store):
                more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
                raise UserError(f"suite {name} is not finished: {gaps[0]}{more}; `lerpbench run` finishes it")
            manifest = facts(store)
        manifest = manifest.model_copy(update={"files": {DATABASE: record(path)}})
        pack(path, manifest, bundle)
    return manifest


def _chosen(store: Reader, suite: str | None, database: Path) -> str:
    names = list(store.suite_definitions())
    if suite is None and len(names) == 1:
        return names[0]
    if suite is None or suite not in names:
        asked = "several suites; say which with --suite" if suite is None and names else f"no suite {suite or ''!r}"
        raise UserError(f"{database}: {asked}; it has {', '.join(names) or 'none'}")
    return suite


def record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def pack(database: Path, manifest: Manifest, bundle: Path) -> None:
    """Write the bundle beside its place and move it there when it is whole.  Raises UserError."""
    partial = bundle.with_name(f".{bundle.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_entry(MANIFEST), json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
            with database.open("rb") as source, archive.open(_entry(DATABASE), "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
        os.replace(partial, bundle)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{bundle}: cannot be written: {error.strerror or error}") from error


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, BORN)
    entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
    return entry


# ------------------------------------------------------------------------------------------------------ reading one


def unpack(bundle: Path, folder: Path) -> tuple[Path, Manifest]:
    """Write the bundle's database into a folder; its manifest, as claimed.  Raises UserError for what is no bundle."""
    try:
        with zipfile.ZipFile(bundle) as archive:
            if sorted(archive.namelist()) != [MANIFEST, DATABASE]:
                raise UserError(f"{bundle}: not a lerpbench bundle: expected just {MANIFEST} and {DATABASE} in it")
            for entry in archive.infolist():
                _extract(archive, entry, folder / entry.filename)
    except FileNotFoundError as error:
        raise UserError(f"{bundle}: no such bundle; `lerpbench submit` makes one") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{bundle}: cannot be read as a bundle: {' '.join(str(error).split())}") from error
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        raise explain(error, f"{bundle}: {MANIFEST}", Manifest.model_fields) from error
    return folder / DATABASE, manifest


def readable(bundle: Path, folder: Path) -> Path:
    """The bundle's database, written into a folder under the bundle's name.  Raises UserError unless its bytes are
    those that the manifest tells of, and it is a lerpbench database and nothing else; whether its rows are right is for
    `verify` to say."""
    path, manifest = unpack(bundle, folder)
    if manifest.files != {DATABASE: record(path)}:
        raise UserError(f"{bundle}: {DATABASE} is not the file that its manifest tells of")
    for table, row, column, stored, _ in faults(path):
        where = f"{table} {json.dumps(row, default=str)}: {column}"
        raise UserError(f"{bundle}: not what lerpbench writes: {where}: stored {json.dumps(stored, default=str)[:100]}")
    return path.rename(folder / f"{bundle.stem}.db")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Copy one file, no further than it says it reaches.  Raises UserError where that is implausibly far."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{archive.filename}: {target.name} is packed in a way that `lerpbench submit` never uses")
    if entry.file_size > min(MAX_BYTES[target.name], MAX_RATIO * entry.compress_size):
        raise UserError(f"{archive.filename}: {target.name} would unpack to {entry.file_size:,} bytes; refused")
    left = entry.file_size
    with archive.open(entry) as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise UserError(f"{archive.filename}: {target.name} is larger than it says; refused")
            file.write(chunk)


# ------------------------------------------------------------------------------------------------------ both sides


def facts(store: Reader) -> Manifest:
    """The manifest, without files, that follows from a database of one suite."""
    environments = store.environments()
    return Manifest(
        suite=", ".join(store.suite_definitions()),
        engines=tuple(sorted({suite.engine for suite in store.suites()})),
        schema_format=FORMAT,
        commits=tuple(sorted({str(details.get("commit")) for details in environments.values()})),
        environments=environments,
        checkpoints=checkpoints(store),
        counts={table: store.count(table) for table in store.tables()},
    )


def checkpoints(store: Reader) -> dict[str, str]:
    """Name -> SHA-256 of the checkpoints that some point mixes."""
    found = {name: digest for mixture in store.mixtures() for name, digest in mixture.checkpoints.items()}
    return dict(sorted(found.items()))


def missing(store: Reader) -> list[str]:
    """What the suite's definition asks for and a database of one suite lacks, or holds beyond it."""
    suite = stored_suite(store)
    asked = asked_points(suite)
    engines = store.suites()
    found = [] if engines else ["no point was run"]
    for on in engines:
        points = {(point.method, point.params_json): point for point in store.points(on.id, on.engine)}
        found += [f"{point_name(*key)} was not run on {on.engine}" for key in asked if key not in points]
        found += [
            f"{point.name} on {on.engine} is not in its definition" for key, point in points.items() if key not in asked
        ]
        found += [
            f"{point.name} " + (f"failed: {point.failed}" if point.failed else "has no completions")
            for point in points.values()
            if point.generation_id is None
        ]
        found += _unjudged(store, suite, {point.id: point.name for point in points.values()})
    return found


def stored_suite(store: Reader) -> Suite:
    """The suite of a database of one."""
    (definition,) = store.suite_definitions().values()
    return Suite.model_validate_json(definition)


def asked_points(suite: Suite) -> list[tuple[str, str]]:
    """(method, parameters) of each point that the definition spans, in its order.  Raises UserError for too many."""
    require_countable(suite)
    asked = (
        (spec.name, canonical_json(dict(zip(spec.params, values, strict=True))))
        for spec in suite.methods
        for values in product(*spec.params.values())
    )
    return list(dict.fromkeys(asked))


def _unjudged(store: Reader, suite: Suite, points: dict[int, str]) -> Iterator[str]:
    """Points without a verdict of each of the suite's evaluators.  One that has a single verdict that is on no text
    looks at the checkpoints, once for all points."""
    listed = Counter(spec.name for spec in suite.evaluators)
    judged: dict[str, Counter[int]] = {name: Counter() for name in listed}
    verdicts: dict[str, set[tuple[int, bool]]] = {name: set() for name in listed}
    evaluations = {one.id: one for one in store.evaluations()}
    for point, evaluation_id in store.links():
        evaluation = evaluations[evaluation_id]
        if evaluation.evaluator in listed and point in points:
            judged[evaluation.evaluator][point] += 1
            verdicts[evaluation.evaluator].add((evaluation_id, evaluation.generation_id is not None))
    for name, times in listed.items():
        of_checkpoints = len(verdicts[name]) == times and not any(of_text for _, of_text in verdicts[name])
        if not of_checkpoints:
            yield from (f"{name} did not judge {label}" for id_, label in points.items() if judged[name][id_] < times)
