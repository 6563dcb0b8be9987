"""The checkpoints that weight space mixes, as tensors: kept in their own dtype, mixed in float32 one at a time.

A mixture is always made anew from the checkpoints, so no change of it leaves a trace.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from bench.engines.mixing import mix_tensors
from bench.schema import Recipe
from bench.suite.checkpoints import open_tensors

LARGEST_SHARE = 0.8  # of the device's free memory that anchors may take; else they stay in the host's

Key = TypeVar("Key")


class Anchors:
    """The parameters of some checkpoints, by name: on the device where they fit, else in the host's pinned memory.

    On a CPU they are read from their files when they are needed, through the page cache.
    """

    def __init__(self, folders: Mapping[str, Path], digests: Mapping[str, str], device: torch.device) -> None:
        self.digests = digests
        self.device = device
        self._open = {checkpoint: open_tensors(folder) for checkpoint, folder in folders.items()}
        self._kept: dict[tuple[str, str], Tensor] = {}
        if device.type == "cuda":
            self._keep()

    @property
    def names(self) -> list[str]:
        return list(next(iter(self._open.values())))

    def read(self, checkpoint: str, name: str) -> Tensor:
        """One parameter of one checkpoint, float32, on the device."""
        kept = self._kept.get((checkpoint, name))
        tensor = self._open[checkpoint][name]() if kept is None else kept
        return tensor.to(self.device, non_blocking=True).float()

    def mixture(self, recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
        """Every parameter of the mixture, float32."""
        return mix_tensors(recipe, self.digests, self.names, self.read)

    def share_that_survived(self, recipe: Recipe, dtype: torch.dtype) -> float | None:
        """Of the update to the base; see `share_left`."""
        parts = ((mixture.to(dtype), mixture, self.read("base", name)) for name, mixture in self.mixture(recipe))
        return share_left(parts, dtype)

    def _keep(self) -> None:
        host = {(checkpoint, name): self._open[checkpoint][name]() for checkpoint in self._open for name in self.names}
        self._kept = placed(host, self.device)


def share_left(parts: Iterable[tuple[Tensor, Tensor, Tensor]], dtype: torch.dtype) -> float | None:
    """<served - rounded base, mixture - base> / |mixture - base|^2: 1 where rounding to `dtype` lost nothing.

    parts: (served, mixture, base), the last two float32.  None where the mixture is the base.
    """
    kept = norm = 0.0
    for served, mixture, base in parts:
        update = mixture - base
        left = served.float() - base.to(dtype).float()
        kept += float((left * update).sum(dtype=torch.float64))
        norm += float(update.square().sum(dtype=torch.float64))
    return kept / norm if norm else None


def placed(tensors: dict[Key, Tensor], device: torch.device) -> dict[Key, Tensor]:
    """All on the device where they fit, else in the host's memory, pinned where the device is a GPU."""
    if device.type != "cuda":
        return tensors
    fits = sum(tensor.nbytes for tensor in tensors.values()) <= LARGEST_SHARE * torch.cuda.mem_get_info(device)[0]
    return {key: tensor.to(device) if fits else tensor.pin_memory() for key, tensor in tensors.items()}
