"""Run judges over many texts quickly: each distinct text once, in batches of a token budget, packed or padded.

Where the judge allows it (`evaluators.packing`) a batch is one stream of tokens without padding, and what texts begin
with, such as the prompt of 25 completions, runs once.  Otherwise texts are sorted by length and padded on the right,
where a causal model cannot see them.  Either way results depend on neither batch nor order.  A language model's head
runs in chunks and its log-softmax in float32, so that (B, T, V) never exists.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.progress import Advance, silent
from evaluators.judges import Judge
from evaluators.packing import common_start, pack, packed_attention, packed_states

Precision = Literal["float32", "bfloat16"]
Item = TypeVar("Item", bound=Hashable)
Nats = NDArray[np.float64]

TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32768}  # where a batch starts; halved when the device runs out of memory
HEAD_ROWS = 256  # hidden states that the head's weights are read for, at least
LOGITS_AT_ONCE = {"cpu": 2**17, "cuda": 2**27}  # float32 logits in one log-softmax: 512 KiB, half of a cache; 512 MiB


def distinct_items(items: Sequence[Item]) -> tuple[list[Item], NDArray[np.int64], NDArray[np.int64]]:
    """The distinct items in order of appearance, each given item's place among them, and how often each was given."""
    places: dict[Item, int] = {}
    index = np.array([places.setdefault(item, len(places)) for item in items], dtype=np.int64)
    return list(places), index, np.bincount(index, minlength=len(places))


def encode(judge: Judge, texts: Sequence[str]) -> list[list[int]]:
    """Each text's tokens as the judge's tokenizer makes them, special ones included, in one pass."""
    if not texts:
        return []
    only_ids = {"return_attention_mask": False, "return_token_type_ids": False}
    ids: list[list[int]] = judge.tokenizer(list(texts), verbose=False, **only_ids)["input_ids"]
    return ids


def context_length(judge: Judge) -> int:
    """The most tokens the judge can read; RoBERTa's positions start behind its padding index."""
    config = judge.model.config
    positions = getattr(config, "max_position_embeddings", None) or 2**31
    if "roberta" in str(getattr(config, "model_type", "")):
        positions -= (config.pad_token_id or 0) + 1
    return int(min(positions, judge.tokenizer.model_max_length))


def run_in_batches(
    rows: Sequence[int], count: Callable[[int, int], int], budget: int, run: Callable[[list[int]], None]
) -> None:
    """Call `run` with consecutive pieces of `rows`; `count(done, budget)` says how many come next (at least one does).

    When the device runs out of memory the budget is halved for all that follows; a single row that does not fit raises.
    """
    done = 0
    while done < len(rows):
        piece = list(rows[done : done + max(count(done, budget), 1)])
        if _fits(run, piece):
            done += len(piece)
        else:  # outside of the handler, whose exception holds on to what was computed
            torch.cuda.empty_cache()
            budget //= 2


def _fits(run: Callable[[list[int]], None], rows: list[int]) -> bool:
    try:
        run(rows)
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
        return False
    return True


def run_padded(lengths: Sequence[int], budget: int, run: Callable[[list[int]], None]) -> None:
    """`run` over rows, longest first, so that rows x longest <= budget.

    A batch ends where its rows become shorter, if it is at least half full: nothing is padded then.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    ordered = -np.array([max(lengths[row], 1) for row in order], dtype=np.int64)

    def count(done: int, budget: int) -> int:
        longest = -int(ordered[done])
        alike = int(np.searchsorted(ordered, -longest, side="right")) - done
        fitting = budget // longest
        return min(alike, fitting) if 2 * alike * longest >= budget else fitting

    run_in_batches(order, count, budget, run)


def run_packed(sequences: Sequence[Sequence[int]], budget: int, run: Callable[[list[int]], None]) -> None:
    """`run` over rows, those with one beginning side by side; a batch has about `budget` tokens, shared ones once."""
    order = sorted(range(len(sequences)), key=lambda row: list(sequences[row]))
    ordered = [sequences[row] for row in order]
    own = [len(b) - common_start(a, b) for a, b in zip([[], *ordered], ordered, strict=False)]
    ends = np.cumsum(own)

    def count(done: int, budget: int) -> int:
        before = int(ends[done - 1]) if done else 0
        return int(np.searchsorted(ends, before + budget, side="right")) - done

    run_in_batches(order, count, budget, run)


def _run_in_batches(judge: Judge, sequences: Sequence[Sequence[int]], run: Callable[[list[int]], None]) -> None:
    budget = TOKENS_PER_BATCH[judge.device.type]
    if judge.packs:
        run_packed(sequences, budget, run)
    else:
        run_padded([len(ids) for ids in sequences], budget, run)


@contextmanager
def _judging(judge: Judge, precision: Precision) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())  # in inference mode autocast would round the weights anew for each batch
        if precision == "bfloat16":
            stack.enter_context(torch.autocast(judge.device.type, torch.bfloat16))
        if judge.packs:
            stack.enter_context(packed_attention(judge.model))
        yield


def _padded(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> Tensor:
    """(B, T) int64, padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], device=device)


# ---------------------------------------------------------------------------------------------- language models


def token_nlls(
    judge: Judge,
    sequences: Sequence[Sequence[int]],
    *,
    precision: Precision = "float32",
    advance: Advance = silent,
    counts: Sequence[int] | None = None,
) -> list[Nats]:
    """-log p(token | tokens before) of every token but the first, which nothing precedes.

    One (T - 1,) float64 array a sequence, nats.  `counts`: what `advance` is told of each sequence (default 1).
    """
    times = [1] * len(sequences) if counts is None else counts
    nlls: list[Nats] = [np.zeros(0)] * len(sequences)
    scored = [row for row, ids in enumerate(sequences) if len(ids) > 1]
    advance(sum(times) - sum(times[row] for row in scored))

    def run(batch: list[int]) -> None:
        rows = [scored[i] for i in batch]
        for row, nll in zip(rows, _nlls(judge, [sequences[row] for row in rows]), strict=True):
            nlls[row] = nll
        advance(sum(times[row] for row in rows))

    with _judging(judge, precision):
        _run_in_batches(judge, [sequences[row][:-1] for row in scored], run)
    return nlls


def _nlls(judge: Judge, rows: Sequence[Sequence[int]]) -> list[Nats]:
    """The rows' NLLs; where one hidden state has the same next token in several rows, the head runs for it once."""
    head = judge.head
    assert head is not None, "a classifier has no next tokens"
    hidden, places = _states(judge, [row[:-1] for row in rows])
    targets = [np.array(row[1:], dtype=np.int64) for row in rows]
    pairs = np.concatenate([p * head.out_features + t for p, t in zip(places, targets, strict=True)])
    distinct, index = np.unique(pairs, return_inverse=True)
    place, target = (torch.from_numpy(a).to(hidden.device) for a in divmod(distinct, head.out_features))
    nll = head_nlls(head, hidden[place], target).double().cpu().numpy()[index]
    return np.split(nll, np.cumsum([len(t) for t in targets])[:-1])


def _states(judge: Judge, rows: Sequence[Sequence[int]]) -> tuple[Tensor, list[NDArray[np.int64]]]:
    """Last hidden states (N, D), and where among them each row's tokens are, (T,) a row."""
    if judge.packs:
        packing = pack(rows, judge.device)
        return packed_states(judge.model, packing), packing.places
    ids = _padded(rows, 0, judge.device)
    hidden = judge.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1), [row * ids.shape[1] + np.arange(len(tokens)) for row, tokens in enumerate(rows)]


def head_nlls(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(head(hidden))[target], the softmax in float32, some hidden states at a time.

    hidden: (N, D); targets: (N,) int64.  Returns (N,) float32, nats.
    """
    rows = max(LOGITS_AT_ONCE[hidden.device.type] // int(head.out_features), 1)
    parts = []
    for states, next_tokens in _pieces(max(rows, HEAD_ROWS), hidden, targets):
        for logits, chosen in _pieces(rows, head(states), next_tokens):
            parts.append(torch.nn.functional.cross_entropy(logits.float(), chosen, reduction="none"))
    return torch.cat(parts)


def _pieces(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


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

    def run(batch: list[int]) -> None:
        rows = [fit[i] for i in batch]
        logits = _class_logits(judge, [sequences[row] for row in rows]).float()
        probabilities[rows] = (logits.softmax(-1) if activation == "softmax" else logits.sigmoid()).cpu().numpy()
        advance(int(sum(counts[row] for row in rows)))

    with _judging(judge, precision):
        _run_in_batches(judge, [sequences[row] for row in fit], run)
    given = {i: reasons[row] for i, row in enumerate(index.tolist()) if row in reasons}
    return probabilities[index], given


def _unfit(text: str, ids: Sequence[int], limit: int) -> str | None:
    if not text.strip():
        return "empty text"
    if len(ids) > limit:
        return f"{len(ids)} tokens, longer than the judge's context of {limit}"
    return None


def _class_logits(judge: Judge, rows: Sequence[Sequence[int]]) -> Tensor:
    """(B, L).  A mask is given only where something is padded: attention is quicker without."""
    if judge.packs:
        hidden, places = _states(judge, rows)
        logits: Tensor = judge.model.score(hidden[torch.tensor([int(p[-1]) for p in places], device=judge.device)])
        return logits
    pad = judge.model.config.pad_token_id
    ids = _padded(rows, judge.tokenizer.pad_token_id if pad is None else pad, judge.device)
    mask = None
    if min(map(len, rows)) < ids.shape[1]:
        lengths = torch.tensor([len(row) for row in rows], device=judge.device)
        mask = (torch.arange(ids.shape[1], device=judge.device) < lengths[:, None]).long()
    logits = judge.model(input_ids=ids, attention_mask=mask).logits
    return logits
