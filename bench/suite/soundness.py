"""Are a checkpoint's files what they should be?  Found out before any work starts, and said in one line.

Files come from elsewhere: cut downloads, dangling links, a configuration of another model.
"""

import json
import struct
from pathlib import Path
from typing import Any

from bench.schema import UserError

HEADER_BYTES = 100 * 2**20  # safetensors' own limit


def require_sound(folder: Path, source: str) -> None:
    """Raise UserError where the configuration, the tokenizer or the weights are not readable whole."""
    config = _json(folder / "config.json", source)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"checkpoint {source}: config.json has no model_type; expected a transformers checkpoint")
    tokenizers = [path for path in folder.glob("*") if path.name in ("vocab.json", "tokenizer.model", "vocab.txt")]
    if (folder / "tokenizer.json").is_file():
        model = _json(folder / "tokenizer.json", source).get("model")
        if not isinstance(model, dict) or not model.get("vocab"):
            raise UserError(f"checkpoint {source}: tokenizer.json has no vocabulary")
    elif not tokenizers:
        raise UserError(f"checkpoint {source}: {folder} has no tokenizer; save it with save_pretrained")
    for path in sorted(folder.glob("*.safetensors")):
        whole_header(path, source)


def whole_header(path: Path, source: str) -> dict[str, Any]:
    """Tensor -> its entry in a safetensors file.  Raises UserError unless the file has the bytes that they promise."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, HEADER_BYTES):
                raise ValueError("its header reaches beyond its end")
            entries: dict[str, Any] = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        promised = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except OSError as error:
        raise UserError(f"checkpoint {source}: {path.name} cannot be read: {error.strerror}") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(f"checkpoint {source}: {path.name} is not a safetensors file") from error
    if size < promised:
        raise UserError(f"checkpoint {source}: {path.name} is cut off: {size:,} of {promised:,} bytes; fetch it again")
    return entries


def _json(path: Path, source: str) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"checkpoint {source}: {path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"checkpoint {source}: {path.name} is not JSON: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"checkpoint {source}: {path.name} should hold an object, got {type(loaded).__name__}")
    return loaded
