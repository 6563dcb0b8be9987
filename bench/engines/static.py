"""Decoding on a GPU in steps of fixed shapes at fixed places, so that a step is one replay of a CUDA graph.

Launched one by one, the kernels of a step take longer to launch than to run.  A loop is captured for a number of rows
and the most tokens asked for so far, and serves every mixture of the same models: weights change in place, and prompts,
coefficients and random numbers are its inputs.  The host asks once a step: are all numbers finite, is a draw to be
repeated, does a row still go on.  Rows that have ended are decoded on, since shapes do not change.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from bench.engines.sampling import NO_NUMBERS, Draw, draw_highest, draw_once, redraw
from bench.engines.stream import Stream
from bench.schema import Sampling, UserError
from bench.serving import NotFiniteError

if TYPE_CHECKING:
    from bench.engines.transformers import TransformersModel

ROWS = 128  # above as many, numbers of rows that have a loop of their own are this far apart; below, powers of two
ROOM = 16  # tokens that rooms are apart
OFF = "LERPBENCH_CUDA_GRAPHS"  # 0: decode with growing caches, kernel by kernel
LARGEST_SHARE = 0.4  # of the device's memory that the caches of all loops may take


class Rows(NamedTuple):
    """What tells rows apart."""

    prompt: Tensor  # (B,) int64, the place of the one that it continues
    mixture: Tensor  # (B,) int64, the place of its own
    keys: Tensor  # (B,) int64, of its random numbers
    noise: Tensor  # (B, steps) float64, the first of them for each step


class Shape(NamedTuple):
    """What a loop is captured for."""

    rows: int
    rooms: tuple[int, ...]  # places of each member's cache
    steps: int

    def nbytes(self, streams: Sequence[Stream]) -> int:
        """Of the caches."""
        return sum(room * bytes_per_place(s) for s, room in zip(streams, self.rooms, strict=True)) * self.rows

    def with_room_for(self, other: "Shape") -> "Shape":
        """Of the same rows."""
        rooms = tuple(map(max, self.rooms, other.rooms))
        return Shape(self.rows, rooms, max(self.steps, other.steps))


class Captured(Protocol):
    """What `Loops` keeps."""

    shape: Shape
    nbytes: int  # of its caches


T = TypeVar("T")
L = TypeVar("L", bound=Captured)


class Loops:
    """The loops of an engine; the one that was idle longest makes room for another."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Captured] = {}

    def decode(
        self,
        model: "TransformersModel",
        streams: Sequence[Stream],
        hidden: Sequence[Tensor],
        rows: Rows,
        sampling: Sampling,
        end: int,
    ) -> Tensor:
        """Continue prompts that the streams have read, `hidden` m x (P, h) their last states.

        Returns the tokens drawn for each row, (B, steps) int64, and nothing of use behind an end token.
        """
        first = model.draw([h[rows.prompt] for h in hidden], sampling, rows.keys, 0, rows.mixture, rows.noise[:, 0])
        if sampling.max_new_tokens == 1:
            return first[:, None]
        loop = self._loop_for(model, streams, len(first), sampling)
        loop.start(model, streams, rows, first, end)
        return loop.finish()[: len(first)]

    def clear(self) -> None:
        self._kept.clear()

    def _loop_for(self, model: "TransformersModel", streams: Sequence[Stream], rows: int, sampling: Sampling) -> "Loop":
        shape = shape_for(streams, rows, sampling.max_new_tokens)
        recipe, alone = model.recipe, model.coefficients == [[1.0]]
        mixed = None if alone else (recipe.space, tuple(recipe.coefficients))
        drawing = sampling.temperature, sampling.top_p, recipe.filter_p, recipe.plausible
        return self.kept((mixed, drawing), streams, shape, lambda shape: Loop(model, streams, shape, sampling, alone))

    def kept(self, what: tuple[Any, ...], streams: Sequence[Stream], shape: Shape, make: Callable[[Shape], L]) -> L:
        """The loop of these models and rows that does this; made anew where there is none, or one that is too small."""
        key = (*(id(stream.model) for stream in streams), shape.rows, what)
        loop: Any = self._kept.pop(key, None)
        wanted = shape if loop is None else loop.shape.with_room_for(shape)
        if loop is None or wanted != loop.shape:
            loop = None
            self._make_room(wanted.nbytes(streams))
            loop = make(wanted)
        self._kept[key] = loop
        found: L = loop
        return found

    def _make_room(self, nbytes: int) -> None:
        if torch.cuda.is_available():
            most = LARGEST_SHARE * torch.cuda.mem_get_info()[1]
            while self._kept and nbytes + sum(loop.nbytes for loop in self._kept.values()) > most:
                del self._kept[next(iter(self._kept))]


class Loop:
    """A step of some rows: every member reads a token a row, and the next one is drawn."""

    def __init__(
        self, model: "TransformersModel", streams: Sequence[Stream], shape: Shape, sampling: Sampling, alone: bool
    ) -> None:
        device = model.engine.device
        self.model = model
        self.shape = shape
        self.sampling = sampling
        self.alone = alone  # whether there is nothing to mix
        self.steps = shape.steps  # that are asked for, at most as many
        self.streams = [StaticStream(s, shape.rows, room) for s, room in zip(streams, shape.rooms, strict=True)]
        self.nbytes = sum(stream.nbytes for stream in self.streams)
        whole = partial(torch.zeros, dtype=torch.int64, device=device)
        self.coefficients = torch.ones(len(streams), shape.rows, 1, device=device)
        self.noise = torch.zeros(shape.steps, shape.rows, dtype=torch.float64, device=device)
        self.keys, self.tokens, self.end, self.step = whole(shape.rows), whole(shape.rows), whole(1), whole(1)
        self.going = torch.zeros(shape.rows, dtype=torch.bool, device=device)
        self.drawn = whole(shape.steps, shape.rows)
        self.answers = torch.zeros(3, dtype=torch.bool, device=device)
        self.beside = Beside(len(streams), device)
        self.graph: Any = None
        if device != "cpu":
            self.draw, self.graph = captured(self._kernels)

    def start(
        self,
        model: "TransformersModel",
        streams: Sequence[Stream],
        rows: Rows,
        first: Tensor,
        end: int,
    ) -> None:
        """Take other prompts, coefficients and noise.  first: (B,) the first token of each row.

        Rows that are too many for B are copies of the first one, and ended.
        """
        prompt, mixture, keys, noise, tokens = with_spare([*rows, first], len(self.tokens))
        self.keys.copy_(keys)
        self.tokens.copy_(tokens)
        self.steps = noise.shape[1]
        self.noise[: self.steps] = noise.t()
        self.coefficients.copy_(torch.tensor(model.coefficients, device=keys.device)[mixture].t()[..., None])
        self.going.copy_(torch.arange(len(self.tokens), device=keys.device) < len(first))
        self.end.fill_(end)
        self.step.zero_()
        for own, stream in zip(self.streams, streams, strict=True):
            own.start(stream, prompt)

    def finish(self) -> Tensor:
        """All steps, or as many as some row goes on.  Returns (rows, steps) int64."""
        self.drawn.copy_(self.end.expand_as(self.drawn))
        for step in range(1, self.steps):
            draw = self._advance()
            finite, outside, going = self.answers.tolist()
            if not going:
                break
            if not finite:
                raise NotFiniteError(NO_NUMBERS)
            if outside:
                redraw(self.tokens, [draw.rejected()], self.keys, step)
        self.drawn[int(self.step)] = self.tokens
        return self.drawn[: self.steps].t()

    def _advance(self) -> Draw:
        if self.graph is None:
            return self._kernels()
        self.graph.replay()
        return self.draw

    def _kernels(self) -> Draw:
        self.drawn.index_copy_(0, self.step, self.tokens[None])
        self.going &= self.tokens != self.end
        self.step += 1
        hidden = self.beside.run([partial(stream.step, self.tokens) for stream in self.streams])
        logits = self.model.logits(hidden)
        allowed, top_p = self.model.candidates(logits, self.sampling.top_p)
        mixed = self._mixed(logits)
        if self.sampling.temperature == 0:
            draw = draw_highest(mixed if allowed is None else mixed.masked_fill(~allowed, -torch.inf))
        else:
            tempered = mixed if self.sampling.temperature == 1 else mixed.div_(self.sampling.temperature)
            draw = draw_once(tempered, top_p, self.noise.index_select(0, self.step)[0], allowed)
        self.tokens.copy_(draw.tokens)
        self.answers.copy_(torch.stack([draw.finite, draw.outside.any(), self.going.any()]))
        return draw

    def _mixed(self, logits: Sequence[Tensor]) -> Tensor:
        """As `mix_logits` and `mix_probs`, with each row's own coefficients, in the place of the first."""
        if self.alone:
            return logits[0]
        probs = self.model.recipe.space == "probs"
        parts = [z.softmax(dim=-1) for z in logits] if probs else logits
        mixed = summed(self.coefficients, parts)
        return mixed.log_() if probs else mixed


def summed(coefficients: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """The sum of the parts, each times its coefficient, of any shape that broadcasts, in the place of the first."""
    total = parts[0].mul_(coefficients[0])
    for coefficient, part in zip(coefficients[1:], parts[1:], strict=True):
        total.addcmul_(coefficient, part)
    return total


def captured(kernels: Callable[[], T]) -> tuple[T, Any]:
    """What the kernels return, overwritten at each replay of the CUDA graph that holds them, and that graph.

    They run once before.  Raises UserError where no graph holds them.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up at their first call, which no graph can hold
        kernels()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            found = kernels()
    except RuntimeError as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(
            f"engine transformers: no CUDA graph holds a step of these models ({told}); set {OFF}=0"
        ) from error
    return found, graph


class Beside:
    """On a GPU the members of an ensemble run side by side: the kernels of few rows leave most of it idle."""

    def __init__(self, members: int, device: str) -> None:
        beside = device != "cpu" and members > 1
        self.sides: list[Any] = [torch.cuda.Stream() for _ in range(members)] if beside else []  # type: ignore[no-untyped-call]

    def run(self, steps: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        """What each member's step returns."""
        if not self.sides:
            return [step() for step in steps]
        main = torch.cuda.current_stream()
        found = []
        for step, side in zip(steps, self.sides, strict=True):
            side.wait_stream(main)
            with torch.cuda.stream(side):
                found.append(step())
        for side in self.sides:
            main.wait_stream(side)
        return found


class FixedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer of key-value cache that holds all places from the start; a mask hides those that hold nothing yet."""

    def __init__(self, keys: Tensor, values: Tensor, rows: int, room: int) -> None:
        """keys, values: (P, heads, T, head size), of any prompts, for their shapes."""
        super().__init__()
        self.keys, self.values = (x.new_zeros(rows, x.shape[1], room, x.shape[3]) for x in (keys, values))
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.places = torch.empty(0)  # where the next tokens go

    @abstractmethod
    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write (B, heads, Q, head size); returns all places, (B, heads, room, head size)."""


class FixedStream:
    """A member's key-value cache at fixed places, the prompts' first."""

    layer: ClassVar[type[FixedLayer]]
    behind: ClassVar[bool]  # whether the mask shows places behind the prompts from the start

    def __init__(self, stream: Stream, rows: int, room: int) -> None:
        self.model = stream.model
        device = stream.lengths.device
        self.layers = [self.layer(layer.keys, layer.values, rows, room) for layer in stream.cache.layers]
        self.cache = Cache(layers=self.layers)
        self.place = torch.ones(1, dtype=torch.int64, device=device)  # behind the prompts
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.mask = torch.zeros(rows, 1, 1, room, dtype=torch.bool, device=device)
        self.nbytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)

    def start(self, stream: Stream, prompt: Tensor) -> None:
        """Continue the prompts (B,) of a stream that has read them."""
        self.place.fill_(stream.filled)
        self.lengths.copy_(stream.lengths[prompt])
        self.mask.fill_(self.behind)
        real = True if stream.mask is None else stream.mask[prompt][:, None, None, : stream.filled].bool()
        self.mask[..., : stream.filled] = real
        for own, layer in zip(self.layers, stream.cache.layers, strict=True):
            own.keys[:, :, : stream.filled] = layer.keys[prompt]
            own.values[:, :, : stream.filled] = layer.values[prompt]


class StaticLayer(FixedLayer):
    """All rows are at the same place, (1,)."""

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys.index_copy_(2, self.places, keys)
        self.values.index_copy_(2, self.places, values)
        return self.keys, self.values


class StaticStream(FixedStream):
    """A token a row is read at a time, at the same place."""

    layer = StaticLayer
    behind = False

    def __init__(self, stream: Stream, rows: int, room: int) -> None:
        super().__init__(stream, rows, room)
        for layer in self.layers:
            layer.places = self.place

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token per row, (B,) int64.  Returns hidden states (B, h)."""
        self.mask.index_fill_(3, self.place, True)
        outputs = self.model(
            input_ids=tokens[:, None], position_ids=self.lengths[:, None], attention_mask=self.mask,
            past_key_values=self.cache, use_cache=True, last_place=self.place,
        )  # fmt: skip
        self.lengths += 1
        self.place += 1
        hidden: Tensor = outputs.last_hidden_state[:, -1]
        return hidden


def with_spare(tensors: Sequence[Tensor], rows: int) -> list[Tensor]:
    """So many rows of each: behind its own, copies of its first."""
    return [torch.cat([x, x[:1].expand(rows - len(x), *x.shape[1:])]) for x in tensors]


def shape_for(streams: Sequence[Stream], rows: int, steps: int, ahead: int = 0) -> Shape:
    """Room for so many steps behind what the streams have read, and places that may be written `ahead` of them."""
    return Shape(bucket(rows), tuple(round_up(stream.filled + steps + ahead, ROOM) for stream in streams), steps)


def bucket(rows: int) -> int:
    """Rows of the loop that serves this many: powers of two, above `ROWS` its multiples."""
    return 1 << (rows - 1).bit_length() if rows <= ROWS else round_up(rows, ROWS)


def round_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def bytes_per_place(stream: Stream) -> int:
    """Of all layers, for one row."""
    layers = stream.cache.layers
    return sum(x.element_size() * x.shape[1] * x.shape[3] for layer in layers for x in (layer.keys, layer.values))
