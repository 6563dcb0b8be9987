"""Checkpoints for nodes that lack their files: read once by the driver, written once a node, in Ray's object store."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.schema import UserError
from bench.suite.checkpoints import Checkpoint, covered, digest

Files = Mapping[str, bytes]


def packed(checkpoint: Checkpoint) -> Files:
    """Name -> bytes of the files that a checkpoint's digest covers."""
    return {path.name: path.read_bytes() for path in covered(checkpoint.path)}


def kept(checkpoint: Checkpoint, cache: Path) -> Checkpoint | None:
    """The checkpoint where this node has it: at its own place, or in the cache; None where it lacks it."""
    here = checkpoint.model_copy(update={"path": cache / "checkpoints" / checkpoint.digest})
    return next((one for one in (checkpoint, here) if (one.path / "config.json").is_file()), None)


def unpacked(checkpoint: Checkpoint, files: Files, cache: Path) -> Checkpoint:
    """Write the files into the cache, whole or not at all.  Raises UserError where they are not the checkpoint's."""
    folder = cache / "checkpoints" / checkpoint.digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
        inside = Path(made) / "files"
        inside.mkdir()
        for name, content in files.items():
            (inside / name).write_bytes(content)
        if digest(inside) != checkpoint.digest:
            raise UserError(f"checkpoint {checkpoint.source}: its files have changed since the run was prepared")
        try:
            os.rename(inside, folder)
        except OSError:  # another worker of this node was faster
            if not folder.is_dir():
                raise
    return checkpoint.model_copy(update={"path": folder})
