"""Run judges over many texts quickly: each distinct text once, sorted by length, in batches of a token budget.

A language model's head runs in chunks and its log-softmax in float32, so that (B, T, V) never exists.  Rows are padded
on the right, where a causal model cannot see them, so results depend on neither batch nor order.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from bench.serving import Advance, silent
from evaluators.judges import Judge

Precision = Literal["float32", "bfloat16"]
Item = TypeVar("Item", bound=Hashable)
Nats = NDArray[np.float64]

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 32768}  # where a batch starts; halved when the device runs out of memory
FULL_ATTENTION = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "opt", "qwen2", "qwen3"})  # prompts are run once
HEAD_ELEMENTS = {"cpu": 2**20, "cuda": 2**27}  # float32 logits held at once: 4 MiB, which stay in cache, and 512 MiB


def distinct_items(items: Sequence[Item]) -> tuple[list[Item], NDArray[np.int64], NDArray[np.int64]]:
    """The distinct items in order of appearance, each given item's place among them, and how often each was given."""
    places: dict[Item, int] = {}
    index = np.array([places.setdefault(item, len(places)) for item in items], dtype=np.int64)
    return list(places), index, np.bincount(index, minlength=len(places))


def encode(judge: Judge, texts: Sequence[str]) -> list[list[int]]:
    """Each text's tokens as the judge's tokenizer makes them, special ones included, in one pass."""
    if not texts:
        return []
    ids: list[list[int]] = judge.tokenizer(list(texts), verbose=False)["input_ids"]
    return ids


def context_length(judge: Judge) -> int:
    """The most tokens the judge can read; RoBERTa's positions start behind its padding index."""
    config = judge.model.config
    positions = getattr(config, "max_position_embeddings", None) or 2**31
    if "roberta" in str(getattr(config, "model_type", "")):
        positions -= (config.pad_token_id or 0) + 1
    return int(min(positions, judge.tokenizer.model_max_length))


def run_in_batches(lengths: Sequence[int], budget: int, run: Callable[[list[int]], None], alike: bool = False) -> None:
    """Call `run` with row indices, longest first, so that rows x longest <= budget (always at least one row).

    With `alike` a batch ends where its rows become shorter, if it is at least half full: nothing is padded then.
    When the device runs out of memory the budget is halved for all that follows; a single row that does not fit raises.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    done = 0
    while done < len(order):
        longest = max(lengths[order[done]], 1)
        rows = order[done : done + max(budget // longest, 1)]
        if alike and 2 * longest * (same := sum(lengths[row] == lengths[rows[0]] for row in rows)) >= budget:
            rows = rows[:same]
        try:
            run(rows)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
            torch.cuda.empty_cache()
            budget = len(rows) * longest // 2
            continue
        done += len(rows)


def _device(judge: Judge) -> torch.device:
    device: torch.device = next(judge.model.parameters()).device
    return device


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _padded(rows: Sequence[Sequence[int]], fill: int | None, device: torch.device) -> Tensor:
    """(B, T) int64, padded on the right with `fill`, or with each row's own last token where it is None."""
    width = max(map(len, rows))
    filled = [[*row, *[row[-1] if fill is None else fill] * (width - len(row))] for row in rows]
    return torch.tensor(filled, device=device)


# ---------------------------------------------------------------------------------------------- language models


@dataclass(frozen=True)
class _Run:
    """One pass over a list of sequences; results land in `nlls`, (T - 1,) float64 each."""

    judge: Judge
    sequences: Sequence[Sequence[int]]
    precision: Precision
    done: Callable[[list[int]], None]  # told the rows that are finished
    nlls: list[Nats]

    @property
    def budget(self) -> int:
        return TOKENS_PER_BATCH[_device(self.judge).type]

    def whole(self, rows: list[int]) -> None:
        """Score rows from their first token on."""

        def run(batch: list[int]) -> None:
            chosen = [rows[i] for i in batch]
            for row, nll in zip(chosen, self._batch([self.sequences[row] for row in chosen], None), strict=True):
                self.nlls[row] = nll
            self.done(chosen)

        run_in_batches([len(self.sequences[row]) - 1 for row in rows], self.budget, run)

    def shared(self, groups: Mapping[tuple[int, ...], list[int]]) -> None:
        """Score groups of rows that start with the same tokens, which are run once and kept as a key-value cache."""
        by_length: dict[int, list[tuple[int, ...]]] = {}
        for prefix in groups:
            by_length.setdefault(len(prefix), []).append(prefix)
        for prefixes in by_length.values():

            def run(batch: list[int], prefixes: Sequence[tuple[int, ...]] = prefixes) -> None:
                self._continue([prefixes[i] for i in batch], groups)

            run_in_batches([len(prefix) for prefix in prefixes], self.budget, run)

    def _continue(self, prefixes: Sequence[tuple[int, ...]], groups: Mapping[tuple[int, ...], list[int]]) -> None:
        """Prefixes of one length n: the cache holds all but their last token, with which the continuations begin."""
        n = len(prefixes[0])
        cache = DynamicCache(config=self.judge.model.config)
        heads = self._batch(prefixes, cache)
        members = [(place, row) for place, prefix in enumerate(prefixes) for row in groups[prefix]]
        tails = [self.sequences[row][n - 1 :] for _, row in members]

        def run(batch: list[int]) -> None:
            chosen = [members[i] for i in batch]
            repeated = _selected(cache, [place for place, _ in chosen], n - 1)
            found = self._batch([tails[i] for i in batch], repeated)
            for (place, row), nll in zip(chosen, found, strict=True):
                self.nlls[row] = np.concatenate([heads[place], nll])
            self.done([row for _, row in chosen])

        run_in_batches([len(tail) - 1 for tail in tails], self.budget, run)

    def _batch(self, rows: Sequence[Sequence[int]], cache: Any) -> list[Nats]:
        """NLL of each row's tokens but the first; `cache` holds what precedes the rows, and then the rows too."""
        device = _device(self.judge)
        ids = _padded(rows, None, device)  # (B, T)
        lengths = torch.tensor([len(row) - 1 for row in rows], device=device)
        real = torch.arange(ids.shape[1] - 1, device=device) < lengths[:, None]  # (B, T - 1)
        model = self.judge.model
        with _autocast(device, self.precision):
            run = model.base_model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=cache is not None)
            hidden = run.last_hidden_state  # (B, T - 1, D)
            flat = head_nlls(model.get_output_embeddings(), hidden[real], ids[:, 1:][real])
        return np.split(flat.double().cpu().numpy(), np.cumsum([len(row) - 1 for row in rows])[:-1])


def token_nlls(
    judge: Judge,
    sequences: Sequence[Sequence[int]],
    starts: Sequence[int] | None = None,
    *,
    precision: Precision = "float32",
    advance: Advance = silent,
    counts: Sequence[int] | None = None,
) -> list[Nats]:
    """-log p(token | tokens before) of every token but the first, which nothing precedes.

    One (T - 1,) float64 array a sequence, nats.  `starts`: how many tokens of each sequence are its prompt's; what
    several sequences have in common there is run once.  `counts`: what `advance` is told of each sequence (default 1).
    """
    times = [1] * len(sequences) if counts is None else counts

    def done(rows: list[int]) -> None:
        advance(sum(times[row] for row in rows))

    nlls: list[Nats] = [np.zeros(0)] * len(sequences)
    run = _Run(judge, sequences, precision, done, nlls)
    done([row for row, ids in enumerate(sequences) if len(ids) < 2])
    groups = shared_prefixes(sequences, starts) if starts is not None and _shares(judge) else {}
    together = {row for rows in groups.values() for row in rows}
    with torch.inference_mode():
        run.shared(groups)
        run.whole([row for row, ids in enumerate(sequences) if len(ids) > 1 and row not in together])
    return nlls


def shared_prefixes(sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> dict[tuple[int, ...], list[int]]:
    """Prompt tokens -> the rows that go on from them; prompts of one token, or of one row, save nothing."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, (ids, start) in enumerate(zip(sequences, starts, strict=True)):
        if 1 < start < len(ids):
            groups.setdefault(tuple(ids[:start]), []).append(row)
    return {prefix: rows for prefix, rows in groups.items() if len(rows) > 1}


def _shares(judge: Judge) -> bool:
    """Whether every layer keeps plain keys and values, which can be repeated for the continuations of a prompt."""
    layers = DynamicCache(config=judge.model.config).layers
    return bool(judge.model.config.model_type in FULL_ATTENTION) and all(
        type(layer) is DynamicLayer for layer in layers
    )


def _selected(cache: Any, rows: list[int], length: int) -> Any:
    """A cache of `rows` of another one, of its first `length` tokens; a row may be named several times."""
    kept = DynamicCache()
    for place, layer in enumerate(cache.layers):
        index = torch.tensor(rows, device=layer.keys.device)
        kept.update(layer.keys[index, :, :length], layer.values[index, :, :length], place)
    return kept


def head_nlls(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(head(hidden))[target] in float32, a chunk of tokens at a time.

    hidden: (N, D); targets: (N,) int64.  Returns (N,) float32, nats.
    """
    vocabulary = int(head.out_features)
    chunk = max(HEAD_ELEMENTS[hidden.device.type] // vocabulary, 1)
    parts = [
        torch.nn.functional.cross_entropy(head(h).float(), t, reduction="none")
        for h, t in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
    ]
    return torch.cat(parts) if parts else torch.zeros(0)


# ---------------------------------------------------------------------------------------------- classifiers


def classify(
    judge: Judge,
    texts: Sequence[str],
    activation: Literal["softmax", "sigmoid"] = "softmax",
    precision: Precision = "float32",
    advance: Advance = silent,
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Each text's probabilities (N, L), and for the rows that could not be judged (left NaN) the reason why."""
    unique, index, counts = distinct_items(texts)
    sequences = encode(judge, unique)
    limit = context_length(judge)
    reasons = {row: unfit for row, ids in enumerate(sequences) if (unfit := _unfit(unique[row], ids, limit))}
    probabilities = np.full((len(unique), judge.model.config.num_labels), np.nan)
    fit = [row for row in range(len(unique)) if row not in reasons]
    advance(int(sum(counts[row] for row in reasons)))
    device = _device(judge)

    def run(batch: list[int]) -> None:
        rows = [fit[i] for i in batch]
        logits = _class_logits(judge, [sequences[row] for row in rows], precision)
        probabilities[rows] = (logits.softmax(-1) if activation == "softmax" else logits.sigmoid()).cpu().numpy()
        advance(int(sum(counts[row] for row in rows)))

    with torch.inference_mode():
        run_in_batches([len(sequences[row]) for row in fit], TOKENS_PER_BATCH[device.type], run, alike=True)
    given = {i: reasons[row] for i, row in enumerate(index.tolist()) if row in reasons}
    return probabilities[index], given


def _unfit(text: str, ids: Sequence[int], limit: int) -> str | None:
    if not text.strip():
        return "empty text"
    if len(ids) > limit:
        return f"{len(ids)} tokens, longer than the judge's context of {limit}"
    return None


def _class_logits(judge: Judge, rows: Sequence[Sequence[int]], precision: Precision) -> Tensor:
    """(B, L) float32.  The mask is left out where nothing is padded: attention is quicker without."""
    device = _device(judge)
    pad = judge.model.config.pad_token_id
    ids = _padded(rows, judge.tokenizer.pad_token_id if pad is None else pad, device)
    mask = None
    if min(map(len, rows)) < ids.shape[1]:
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
    with _autocast(device, precision):
        logits: Tensor = judge.model(input_ids=ids, attention_mask=mask).logits
    return logits.float()
