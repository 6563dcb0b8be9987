"""Completions on their way between processes: as columns, since a quarter of a million small objects take seconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.schema import Completion, FinishReason, Prompt
from evaluators.base import Samples

REASONS: tuple[FinishReason, ...] = ("stop", "length")


@dataclass(frozen=True)
class Packed:
    """N completions: (4, N) int32 of prompt, sample, tokens, reason; all texts in one, and (N,) where each ends."""

    numbers: NDArray[np.int32]
    text: str
    ends: NDArray[np.int64]


def pack(completions: Sequence[Completion]) -> Packed:
    numbers = np.empty((4, len(completions)), np.int32)
    for row, column in enumerate((
        [c.prompt for c in completions], [c.sample for c in completions], [c.n_tokens for c in completions],
        [REASONS.index(c.finish_reason) for c in completions],
    )):  # fmt: skip
        numbers[row] = column
    ends = np.cumsum([len(c.text) for c in completions], dtype=np.int64)
    return Packed(numbers, "".join(c.text for c in completions), ends)


def unpack(packed: Packed) -> list[Completion]:
    ends = packed.ends.tolist()
    starts = [0, *ends][:-1]
    prompts, samples, tokens, reasons = packed.numbers.tolist()
    return [
        Completion(prompt, sample, packed.text[start:end], n, REASONS[reason])
        for prompt, sample, start, end, n, reason in zip(prompts, samples, starts, ends, tokens, reasons, strict=True)
    ]


def merged(pieces: Sequence[Packed], order: Sequence[int]) -> list[Completion]:
    """All pieces' completions by prompt, then sample; the prompts in this order of their places, counted anew."""
    place = np.empty(len(order), np.int32)
    place[np.asarray(order)] = np.arange(len(order), dtype=np.int32)
    found: list[Completion] = []
    for piece in pieces:
        prompts, *others = piece.numbers
        found += unpack(Packed(np.stack([place[prompts], *others]), piece.text, piece.ends))
    found.sort(key=lambda c: (c.prompt, c.sample))
    return found


@dataclass(frozen=True)
class PackedSamples:
    """What a judge is sent."""

    prompts: Sequence[Prompt]
    completions: Packed

    @classmethod
    def of(cls, samples: Samples) -> "PackedSamples":
        return cls(samples.prompts, pack(samples.completions))

    def samples(self) -> Samples:
        return Samples(self.prompts, unpack(self.completions))
