"""Weight space for a torch model: every checkpoint one flat vector, the served model's parameters views of another.

So a mixture is a few vector operations, theta = sum_i c_i theta_i, and a rule goes tensor by tensor.  Checkpoints stay
in their own dtype; mixing is in float32, a piece at a time, rounded once to the served dtype.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench.engines.anchors import placed, share_left
from bench.engines.mixing import linear, mix_tensors
from bench.schema import Recipe
from bench.suite.checkpoints import Checkpoint, digests, unlike

ALIGNMENT = 16  # elements: every parameter starts on a cache line
PIECE = 1 << 24  # elements mixed at a time, 64 MiB

Load = Callable[[str, torch.dtype | None], Any]  # (checkpoint, dtype or None for its own) -> a model on the CPU


class FlatWeights:
    """Mixes checkpoints into one model, in place."""

    def __init__(self, checkpoints: Mapping[str, Checkpoint], load: Load, dtype: torch.dtype, device: str) -> None:
        self.checkpoints = checkpoints
        self.load = load
        self.dtype = dtype
        self.device = torch.device(device)
        self._anchors: dict[str, Tensor] = {}  # flat parameters of each checkpoint, (N,)
        self._places: dict[str, tuple[int, torch.Size]] = {}  # of the served model: where each begins, its shape
        self._served: tuple[str, Any, Tensor] | None = None  # the checkpoint it is built as, the model, its buffer
        self._recipe: Recipe | None = None
        self._unlike = cache(lambda a, b: unlike(checkpoints[a], checkpoints[b]))  # which reads both files' headers

    def serve(self, recipe: Recipe) -> Any:
        """Write the mixture into the served model.  Returns the model."""
        model, buffer = self._model(next(iter(recipe.coefficients)))
        for part, mixed in self._pieces(recipe):
            buffer[part] = mixed
        self._recipe = recipe
        return model

    def survived_update(self) -> float | None:
        """The share of the update to the base that rounding left; None where no base of its kind is there."""
        if self._recipe is None or self._served is None or not self._has_base(self._served[0]):
            return None
        buffer = self._served[2]
        parts = ((buffer[part], mixed, self._read("base", part)) for part, mixed in self._pieces(self._recipe))
        return share_left(parts, self.dtype)

    def clear(self) -> None:
        self._anchors.clear()
        self._served = self._recipe = None

    def _has_base(self, name: str) -> bool:
        return "base" in self.checkpoints and self._unlike("base", name) is None

    def _model(self, name: str) -> tuple[Any, Tensor]:
        """The served model and its buffer; built anew where the checkpoint has another shape than the last one's."""
        if self._served is not None:
            built, model, buffer = self._served
            if built == name or self._unlike(built, name) is None:
                return model, buffer
        self.clear()
        model = self.load(name, self.dtype).to(self.device)
        buffer = view_parameters_of_one_buffer(model)
        names = (parameter_name for parameter_name, _ in model.named_parameters())
        self._places = {n: (start, p.shape) for n, (p, start) in zip(names, offsets(model), strict=True)}
        self._served = name, model, buffer
        return model, buffer

    def _read(self, checkpoint: str, part: slice) -> Tensor:
        """A part of a checkpoint's flat vector, float32, on the device."""
        if checkpoint not in self._anchors:
            flat = view_parameters_of_one_buffer(self.load(checkpoint, None))
            self._anchors |= placed({checkpoint: flat}, self.device)
        return self._anchors[checkpoint][part].to(self.device, non_blocking=True).float()

    def _pieces(self, recipe: Recipe) -> Iterator[tuple[slice, Tensor]]:
        """The mixture, float32, in pieces of the flat vector."""
        if recipe.rule is None:
            (last, shape) = list(self._places.values())[-1]
            for start in range(0, last + shape.numel(), PIECE):
                part = slice(start, min(start + PIECE, last + shape.numel()))
                yield part, linear(recipe.coefficients, "", lambda name, _, part=part: self._read(name, part))  # type: ignore[misc]
            return
        for name, tensor in mix_tensors(recipe, digests(self.checkpoints), list(self._places), self._parameter):
            yield self._part(name), tensor.flatten()

    def _parameter(self, checkpoint: str, name: str) -> Tensor:
        return self._read(checkpoint, self._part(name)).view(self._places[name][1])

    def _part(self, name: str) -> slice:
        start, shape = self._places[name]
        return slice(start, start + shape.numel())


def offsets(model: Any) -> Iterator[tuple[Tensor, int]]:
    """Each parameter of a model, tied ones once, with its place in the flat vector."""
    start = 0
    for parameter in model.parameters():
        yield parameter, start
        start += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT


def view_parameters_of_one_buffer(model: Any) -> Tensor:
    """Move a model's parameters into one flat buffer and make them views of it.  Returns the buffer (N,).

    Zeros lie between them up to the alignment.  One by one, so that no second copy of the whole is ever held.
    """
    places = list(offsets(model))
    last, start = places[-1]
    flat = torch.zeros(start + last.numel(), dtype=last.dtype, device=last.device)
    for parameter, start in places:
        place = flat[start : start + parameter.numel()]
        place.copy_(parameter.detach().flatten())
        parameter.data = place.view(parameter.shape)
    return flat
