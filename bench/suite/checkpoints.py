"""Where model files are and what bytes they hold: packaged (`mini:base`), a local folder, or a name on the hub.

Preflight compares vocabularies, parameter names and shapes before any work starts, from the files' headers alone.
"""

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.registry import suggest
from bench.schema import UserError, Value
from bench.suite.soundness import require_sound

MODELS = Path(str(files("bench") / "mini" / "models"))
WEIGHTS = "*.safetensors"
READ = ("*.safetensors", "*.json", "*.txt", "*.model")  # what a hub download fetches and a digest covers


class Checkpoint(Value):
    """A checkpoint whose files are on this machine; `digest` is the SHA-256 of their bytes."""

    source: str
    path: Path
    digest: str

    @property
    def config(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        return loaded


def locate(source: str) -> Path:
    """The folder of a source.  Raises UserError saying what was looked for and what to do."""
    if source.startswith("mini:"):
        folder = MODELS / source.removeprefix("mini:")
        if not folder.is_dir():
            known = [path.name for path in MODELS.iterdir() if path.is_dir()] if MODELS.is_dir() else []
            raise UserError(f"checkpoint {source}: no packaged model of that name{suggest(folder.name, known)}")
        return folder
    folder = Path(source)
    if folder.is_dir():
        return folder
    if source.startswith(("/", "./", "../", "~")) or source.count("/") > 1:
        raise UserError(f"checkpoint {source}: no such folder")
    return _download(source)


def _download(source: str) -> Path:
    """Fetch a hub checkpoint, or find it in the local cache.  `name@revision` pins a revision."""
    import huggingface_hub

    name, _, revision = source.partition("@")
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=list(READ)))
    except Exception as error:  # the hub client raises many kinds; each means that the files are not here
        raise UserError(
            f"checkpoint {source}: not a folder, and the hub could not give it ({type(error).__name__}); "
            "check the name and the network, or download it and give its folder"
        ) from error


def resolve(source: str) -> Checkpoint:
    """Find a checkpoint and hash its bytes.  Raises UserError."""
    folder = locate(source)
    if not (folder / "config.json").is_file():
        raise UserError(f"checkpoint {source}: {folder} has no config.json; expected a transformers checkpoint")
    if not list(folder.glob(WEIGHTS)):
        raise UserError(f"checkpoint {source}: {folder} has no {WEIGHTS} file; save it with safetensors")
    require_sound(folder, source)
    return Checkpoint(source=source, path=folder, digest=digest(folder))


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of the files that define the model and its tokenizer."""
    found = sorted({path for pattern in READ for path in folder.glob(pattern)})
    sums = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in found]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def parameter_name(tensor: str) -> str | None:
    """A tensor's name in the whole model; None for one that is no parameter.

    The hub's GPT-2 files hold causal masks, and leave out the prefix that a fine-tuned GPT-2 is saved with.
    """
    if re.fullmatch(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias", tensor):
        return None
    return f"transformer.{tensor}" if tensor.startswith(("wte.", "wpe.", "h.", "ln_f.")) else tensor


def header(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Parameter name -> shape, read from the safetensors headers without loading any weight."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(checkpoint.path.glob(WEIGHTS)):
        with path.open("rb") as file:
            try:
                (length,) = struct.unpack("<Q", file.read(8))
                entries = json.loads(file.read(length))
            except (struct.error, ValueError, MemoryError, OverflowError) as error:
                raise UserError(f"checkpoint {checkpoint.source}: {path.name} is not a safetensors file") from error
        for tensor, entry in entries.items():
            if tensor != "__metadata__" and (name := parameter_name(tensor)) is not None:
                shapes[name] = tuple(entry["shape"])
    return shapes


def require_mixable(checkpoints: Mapping[str, Checkpoint]) -> None:
    """Raise UserError unless all checkpoints have one architecture, vocabulary, parameter names and shapes."""
    if len(checkpoints) < 2:
        return
    (first_name, first), *others = checkpoints.items()
    shapes, vocabulary = header(first), _vocabulary(first)
    for name, other in others:
        between = f"checkpoints {first_name} ({first.source}) and {name} ({other.source}) cannot be mixed: "
        if first.config.get("model_type") != other.config.get("model_type"):
            kinds = f"{first.config.get('model_type')} and {other.config.get('model_type')}"
            raise UserError(f"{between}their architectures are {kinds}")
        sizes = first.config.get("vocab_size"), other.config.get("vocab_size")
        if sizes[0] != sizes[1]:
            raise UserError(f"{between}their vocabularies have {sizes[0]} and {sizes[1]} tokens")
        if vocabulary != _vocabulary(other):
            raise UserError(f"{between}their tokenizers have different vocabularies")
        theirs = header(other)
        if difference := sorted(shapes.keys() ^ theirs.keys()):
            raise UserError(f"{between}only one has the parameter {difference[0]} (and {len(difference) - 1} more)")
        for parameter, shape in shapes.items():
            if theirs[parameter] != shape:
                raise UserError(f"{between}{parameter} has shapes {shape} and {theirs[parameter]}")


def _vocabulary(checkpoint: Checkpoint) -> Any:
    """The token table, or None where the folder has none that can be compared."""
    fast, plain = checkpoint.path / "tokenizer.json", checkpoint.path / "vocab.json"
    if fast.is_file():
        return json.loads(fast.read_text(encoding="utf-8"))["model"].get("vocab")
    return json.loads(plain.read_text(encoding="utf-8")) if plain.is_file() else None


def digests(checkpoints: Mapping[str, Checkpoint], names: Sequence[str] | None = None) -> dict[str, str]:
    """Name -> digest, of all or of some."""
    return {name: checkpoints[name].digest for name in (checkpoints if names is None else names)}
