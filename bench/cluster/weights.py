"""Checkpoints for nodes that lack their files: read once by the driver, written once a node, in Ray's object store.

A folder counts as a checkpoint where its bytes are the checkpoint's.  They are hashed once a node: a note beside the
cache remembers the files' sizes and times.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.schema import UserError
from bench.suite.checkpoints import Checkpoint, covered, digest

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Sent:
    """A checkpoint of the driver's and the SHA-256 of its files; that of a merged adapter is not its `digest`."""

    checkpoint: Checkpoint
    content: str


def sent(checkpoint: Checkpoint, cache: Path) -> Sent:
    """What workers are told of a checkpoint that was resolved just now."""
    merged = checkpoint.path.name == checkpoint.digest  # a folder of the cache, named by the key of what it was made of
    content = digest(checkpoint.path) if merged else checkpoint.digest
    _note(checkpoint.path, content, cache)
    return Sent(checkpoint, content)


def packed(sent: Sent) -> Files:
    """Name -> bytes of the files that a digest covers."""
    return {path.name: path.read_bytes() for path in covered(sent.checkpoint.path)}


def kept(sent: Sent, cache: Path) -> Checkpoint | None:
    """The checkpoint where this node has it: at its own place, or in the cache; None where it lacks it."""
    here = sent.checkpoint.model_copy(update={"path": _folder(sent, cache)})
    return next((one for one in (sent.checkpoint, here) if _holds(one.path, sent.content, cache)), None)


def unpacked(sent: Sent, files: Files, cache: Path) -> Checkpoint:
    """Write the files into the cache, whole or not at all.  Raises UserError where they are not the checkpoint's."""
    folder = _folder(sent, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
        inside = Path(made) / "files"
        inside.mkdir()
        for name, content in files.items():
            (inside / name).write_bytes(content)
        if digest(inside) != sent.content:
            raise UserError(f"checkpoint {sent.checkpoint.source}: its files have changed since the run was prepared")
        if folder.is_dir() and not _holds(folder, sent.content, cache):  # damaged on this node's disk
            os.rename(folder, Path(made) / "damaged")
        try:
            os.rename(inside, folder)
        except OSError:  # another worker of this node was faster
            if not folder.is_dir():
                raise
    return sent.checkpoint.model_copy(update={"path": folder})


def _folder(sent: Sent, cache: Path) -> Path:
    return cache / "checkpoints" / sent.content


def _holds(folder: Path, content: str, cache: Path) -> bool:
    """Whether a folder's bytes are these."""
    if not (folder / "config.json").is_file():
        return False
    note = _note_of(folder, cache)
    if note.is_file() and note.read_text(encoding="utf-8") == _state(folder, content):
        return True
    if digest(folder) != content:
        return False
    _note(folder, content, cache)
    return True


def _note(folder: Path, content: str, cache: Path) -> None:
    """Remember that a folder's bytes were hashed; where the cache cannot be written, they are hashed again."""
    note = _note_of(folder, cache)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        partial = note.with_suffix(f".{os.getpid()}")
        partial.write_text(_state(folder, content), encoding="utf-8")
        partial.replace(note)
    except OSError:
        return


def _note_of(folder: Path, cache: Path) -> Path:
    return cache / "hashed" / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()


def _state(folder: Path, content: str) -> str:
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in covered(folder)]
    return json.dumps([content, stats])
