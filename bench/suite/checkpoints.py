"""Where model files are and what bytes they hold: packaged (`mini:base`), a local folder, or a name on the hub.

Preflight compares vocabularies, parameter names and shapes before any work starts, from the files' headers alone.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.registry import suggest
from bench.schema import Point, UserError, Value
from bench.suite.soundness import require_sound, whole_header

MODELS = Path(str(files("bench") / "mini" / "models"))
WEIGHTS = "*.safetensors"
NAMED = 3  # points named in a refusal
READ = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")  # what a hub download fetches and a digest covers


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


def covered(folder: Path) -> list[Path]:
    """The files that define the model and its tokenizer: those that its digest covers."""
    return sorted({path for pattern in READ for path in folder.glob(pattern)})


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of the covered files."""
    sums = [(path.name, _sha256(path)) for path in covered(folder)]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the model: those of its index if it has one, since hubs store others beside."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return [folder / name for name in sorted(set(shards.values()))]
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob(WEIGHTS))


def parameter_name(tensor: str) -> str | None:
    """A tensor's name in the whole model; None for one that is no parameter.

    Older files hold causal masks and rotary frequencies; the hub's GPT-2 leaves out the prefix that a fine-tuned GPT-2
    is saved with.
    """
    if re.fullmatch(r".*\b(attn|attention)\.(masked_)?bias|.*\brotary_emb\.inv_freq", tensor):
        return None
    return f"transformer.{tensor}" if tensor.startswith(("wte.", "wpe.", "h.", "ln_f.")) else tensor


def header(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Parameter name -> shape, read from the safetensors headers without loading any weight."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(checkpoint.path):
        for tensor, entry in whole_header(path, checkpoint.source).items():
            if (name := parameter_name(tensor)) is not None:
                shapes[name] = tuple(entry["shape"])
    return shapes


def open_tensors(folder: Path) -> dict[str, Callable[[], Any]]:
    """Parameter -> what reads it from its file, a torch tensor on the CPU; in the files' order."""
    from safetensors import safe_open

    places: dict[str, Callable[[], Any]] = {}
    for path in weight_files(folder):
        file: Any = safe_open(path, framework="pt")
        for tensor in list(file.keys()):
            if (name := parameter_name(tensor)) is not None:
                places[name] = partial(file.get_tensor, tensor)
    return places


def require_mixable(checkpoints: Mapping[str, Checkpoint], points: Sequence[Point]) -> None:
    """Raise UserError unless all checkpoints share a vocabulary, and those that a point mixes by weight are alike.

    The error names the points that cannot be had.
    """
    (first, *others) = checkpoints
    for name in others:
        if (reason := _other_vocabulary(checkpoints[first], checkpoints[name])) is not None:
            raise UserError(f"{_between(checkpoints, first, name)}{reason}")
    why = cache(lambda a, b: unlike(checkpoints[a], checkpoints[b]))  # many points have few pairs
    affected: dict[str, list[str]] = {}
    for point in points:
        mixed = point.recipe if point.recipe.draft is None else point.recipe.draft.recipe
        if mixed.space == "weights":
            some, *rest = mixed.coefficients
            for name in rest:
                if (reason := why(some, name)) is not None:
                    affected.setdefault(f"{_between(checkpoints, some, name)}{reason}", []).append(point.label)
                    break
    if affected:
        reason, labels = next(iter(affected.items()))
        n = len(set(itertools.chain.from_iterable(affected.values())))
        more = f" and {n - NAMED} more" if n > NAMED else ""
        raise UserError(f"{reason}, which {', '.join(labels[:NAMED])}{more} would mix by weight; logits can be mixed")


def _between(checkpoints: Mapping[str, Checkpoint], a: str, b: str) -> str:
    return f"checkpoints {a} ({checkpoints[a].source}) and {b} ({checkpoints[b].source}) cannot be mixed: "


def unlike(a: Checkpoint, b: Checkpoint) -> str | None:
    """Why the weights of two checkpoints cannot be mixed; None where architecture, parameters and shapes are one."""
    kinds = a.config.get("model_type"), b.config.get("model_type")
    if kinds[0] != kinds[1]:
        return f"their architectures are {kinds[0]} and {kinds[1]}"
    shapes, theirs = header(a), header(b)
    if difference := sorted(shapes.keys() ^ theirs.keys()):
        return f"only one has the parameter {difference[0]} (and {len(difference) - 1} more)"
    for parameter, shape in shapes.items():
        if theirs[parameter] != shape:
            return f"{parameter} has shapes {shape} and {theirs[parameter]}"
    return None


def _other_vocabulary(a: Checkpoint, b: Checkpoint) -> str | None:
    mine, theirs = _vocabulary(a), _vocabulary(b)
    if mine == theirs:
        return None
    if mine is not None and theirs is not None and len(mine) != len(theirs):
        return f"their vocabularies have {len(mine)} and {len(theirs)} tokens"
    return "their tokenizers have different vocabularies"


def _vocabulary(checkpoint: Checkpoint) -> Any:
    """The token table, or None where the folder has none that can be compared."""
    fast, plain = checkpoint.path / "tokenizer.json", checkpoint.path / "vocab.json"
    if fast.is_file():
        return json.loads(fast.read_text(encoding="utf-8"))["model"].get("vocab")
    return json.loads(plain.read_text(encoding="utf-8")) if plain.is_file() else None


def digests(checkpoints: Mapping[str, Checkpoint], names: Sequence[str] | None = None) -> dict[str, str]:
    """Name -> digest, of all or of some."""
    return {name: checkpoints[name].digest for name in (checkpoints if names is None else names)}
