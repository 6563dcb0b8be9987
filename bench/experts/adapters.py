"""LoRA adapters in PEFT's format as checkpoints: W + scale B A, computed in float32 and written once into the cache.

LoRA: Hu et al. 2021, section 4.1; scale = alpha / r, or alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023, equation 8).
Parameters that the adapter holds whole (`modules_to_save`, biases) replace the base's.  What would not be exact is
refused by name.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from bench.schema import Lora, UserError
from bench.suite.checkpoints import Checkpoint, digest, locate
from bench.suite.keys import key_of
from bench.suite.loading import load_model, load_tokenizer

LEAST_FREE = 2**20  # bytes; a disk with less is full
VERSION = 1  # raised when the same adapter would give other weights
PREFIX = "base_model.model."
UNDERSTOOD = {  # settings that are followed here, that shaped the training alone, or that say where the adapter is from
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias", "modules_to_save",
    "fan_in_fan_out", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout",
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "megatron_core", "qalora_group_size", "init_lora_weights", "runtime_config", "eva_config",
}  # fmt: skip
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva", None)  # those that leave the base's weights as they are


@dataclass(frozen=True)
class Adapter:
    """A PEFT folder: its settings and tensors; names are without PEFT's prefix."""

    source: str
    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def refused(self, reason: str) -> UserError:
        return UserError(f"adapter {self.source}: {reason}")

    def scale(self, module: str, rank: int) -> float:
        """The factor of B A for a module; patterns are PEFT's: the end of the module's name."""
        alpha = float(matching(self.settings.get("alpha_pattern") or {}, module, self.settings.get("lora_alpha", 8)))
        return alpha / rank**0.5 if self.settings.get("use_rslora") else alpha / rank


def densified(base: Checkpoint, source: str, cache: Path) -> Checkpoint:
    """The base with an adapter merged into it; its digest covers the bytes of both.  Raises UserError."""
    folder = locate(source)
    key = key_of("adapter", VERSION, base.digest, digest(folder))
    target = cache / "adapters" / key
    if not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror}); set LERPBENCH_CACHE") from error
        parts = merged(base, read_adapter(folder, source)), load_tokenizer(base)
        with kept_whole(target.parent):
            replace_folder(target, lambda to: [part.save_pretrained(to) for part in parts])
    return Checkpoint(source=f"{base.source} + {source}", path=target, digest=key)


def merged(base: Checkpoint, adapter: Adapter) -> Any:
    """The base's float32 model with the adapter in its weights.  Raises UserError."""
    model = load_model(AutoModelForCausalLM, base, dtype=torch.float32)
    merge(model, adapter)
    return model


def with_new_adapter(model: Any, lora: Lora, seed: int) -> Any:
    """The model behind PEFT's trainable adapter.  Raises UserError where peft is not installed."""
    try:
        import peft
    except ImportError as error:
        raise UserError("finetune.lora: peft is not installed (pip install 'lerpbench[lora]')") from error
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=lora.r, lora_alpha=lora.scale, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(model, config)


def replace_folder(folder: Path, save: Callable[[Path], object]) -> None:
    """Write a folder that is either whole or not there."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    save(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


@contextmanager
def kept_whole(folder: Path) -> Iterator[None]:
    """What cannot be written, most often for want of room, as one line.

    safetensors and torch tell it in errors of their own, one with the system's words, one without.
    """
    try:
        yield
    except Exception as error:
        full = os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(folder).free < LEAST_FREE
        if not (full or isinstance(error, OSError)):
            raise
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: cannot be written: {told}; make room, or set LERPBENCH_CACHE") from error


def read_adapter(folder: Path, source: str) -> Adapter:
    """Raises UserError for what is no LoRA, or a kind of it that cannot be merged exactly."""
    settings, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for path in (settings, weights):
        if not path.is_file():
            raise UserError(f"adapter {source}: {folder} has no {path.name}; expected a folder that PEFT saved")
    config = json.loads(settings.read_text(encoding="utf-8"))
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(weights).items()}
    adapter = Adapter(source, config, tensors)
    if config.get("peft_type") != "LORA":
        raise adapter.refused(f"its kind is {config.get('peft_type')}; LoRA adapters can be merged")
    if config.get("use_dora"):
        raise adapter.refused("it is DoRA, which rescales whole columns; plain LoRA can be merged")
    if config.get("init_lora_weights") not in PLAIN_STARTS:
        start = config["init_lora_weights"]
        raise adapter.refused(f"it was started by {start}, which changes the base; save it as plain LoRA")
    if odd := sorted(key for key, value in config.items() if value and key not in UNDERSTOOD):
        raise adapter.refused(f"it uses {odd[0]}, which is not known to merge exactly")
    return adapter


def matching(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that the module's name ends in, as PEFT matches them."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


@torch.no_grad()
def merge(model: Any, adapter: Adapter) -> None:
    """Add the adapter to a float32 model.  Raises UserError where it does not fit, or changes nothing."""
    parameters = dict(model.named_parameters())
    before: dict[str, Tensor] = {}
    tied = {id(model.get_input_embeddings().weight)} & {id(model.get_output_embeddings().weight)}
    for name, value in _changes(model, adapter):
        if name not in parameters:
            raise adapter.refused(f"the base has no {name}")
        if parameters[name].shape != value.shape:
            shapes = f"{tuple(value.shape)} and the base's {tuple(parameters[name].shape)}"
            raise adapter.refused(f"its {name} has shape {shapes}")
        if id(parameters[name]) in tied:
            raise adapter.refused(f"it changes {name}, which the base uses as embedding and as head")
        before.setdefault(name, parameters[name].clone())
        parameters[name].copy_(value)
    if all(torch.equal(old, parameters[name]) for name, old in before.items()):
        raise adapter.refused("it changes nothing")


def _changes(model: Any, adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    """(parameter, its new value) of everything that the adapter holds."""
    modules = dict(model.named_modules())
    low, whole = pairs(adapter)
    for name, tensor in whole.items():
        yield name, tensor.float()
    for module, (a, b) in low.items():
        if module not in modules:
            raise adapter.refused(f"the base has no module {module}")
        scale = adapter.scale(module, a.shape[0])
        delta = scale * (b.float() @ a.float())  # (outputs, inputs)
        turned = isinstance(modules[module], (Conv1D, torch.nn.Embedding))  # stored as (inputs, outputs)
        weight = modules[module].weight
        delta = delta.t() if turned else delta
        yield f"{module}.weight", weight + delta if weight.shape == delta.shape else delta


def pairs(adapter: Adapter) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """(module -> (A, B), name -> tensor of what is stored whole).  Raises UserError for a half without the other."""
    found: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in adapter.tensors.items():
        part = re.fullmatch(r"(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?", name)
        if part:
            found.setdefault(part[1], {})[part[2]] = tensor
        elif "lora_" in name:
            raise adapter.refused(f"it holds {name}, which is not known to merge exactly")
        else:
            whole[name.replace(".base_layer.", ".")] = tensor
    for module, halves in found.items():
        if len(halves) < 2:
            raise adapter.refused(f"of {module} it holds one half of the product")
    return {module: (halves["A"], halves["B"]) for module, halves in found.items()}, whole
