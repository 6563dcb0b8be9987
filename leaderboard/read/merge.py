"""Boards of several databases -> one board where suite, engine, judges and protocol agree; else apart, saying why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.store.read import Reader
from leaderboard.read.board import Board, PerPrompt, Protocol, Repeat
from leaderboard.read.query import read_boards


def load_boards(stores: Sequence[Reader], paths: Sequence[Path]) -> list[Board]:
    """The boards of these databases, merged where that is honest."""
    names = short_names(paths)
    read = [board for i, store in enumerate(stores) for board in read_boards(store, i, names[i])]
    groups: dict[tuple[str, str], list[Board]] = {}
    for board in read:
        groups.setdefault((board.suite, board.engine), []).append(board)
    merged = [board for group in groups.values() for board in merge_group(group)]
    return [replace(board, chosen=k) for board in merged for k in range(len(board.goals))]


def short_names(paths: Sequence[Path]) -> list[str]:
    """File names, with their folder's name where two are equal."""
    names = [path.name for path in paths]
    return [f"{p.resolve().parent.name}/{p.name}" if names.count(p.name) > 1 else p.name for p in paths]


def merge_group(boards: Sequence[Board]) -> list[Board]:
    """Each board joins the first one it agrees with; boards that stay apart say why."""
    kept: list[Board] = []
    for board in boards:
        home = next((i for i, other in enumerate(kept) if not disagreements(other.protocol, board.protocol)), None)
        if home is None:
            kept.append(board)
        else:
            kept[home] = merge(kept[home], board)
    return [_with_reasons(board, kept) for board in kept]


def _with_reasons(board: Board, kept: Sequence[Board]) -> Board:
    notes = []
    for other in kept:
        if other is not board:
            why = "; ".join(disagreements(board.protocol, other.protocol))
            notes.append(f"Kept apart from {', '.join(other.databases)}: {why}.")
    return replace(board, notes=(*board.notes, *notes))


def disagreements(a: Protocol, b: Protocol) -> list[str]:
    """Why numbers of two databases may not stand in one table; empty if they may."""
    found = []
    for what, x, y in (("sampling", a.sampling, b.sampling), ("dtype", a.dtype, b.dtype)):
        if x != y:
            found.append(f"{what} differs ({x or 'none'} and {y or 'none'})")
    if dict(a.prompts) != dict(b.prompts):
        found.append(f"prompts differ ({_counts(a.prompts)} and {_counts(b.prompts)})")
    elif a.texts != b.texts:
        found.append("the prompts' texts differ")
    for name in sorted(a.checkpoints.keys() & b.checkpoints.keys()):
        if a.checkpoints[name] != b.checkpoints[name]:
            found.append(f"checkpoint {name} differs ({a.checkpoints[name][:12]} and {b.checkpoints[name][:12]})")
    for name in sorted(a.evaluators.keys() & b.evaluators.keys()):
        if a.evaluators[name] != b.evaluators[name]:
            found.append(f"evaluator {name} is set otherwise ({a.evaluators[name]} and {b.evaluators[name]})")
    if found:
        return found
    named = sorted(a.evaluators.keys() & b.evaluators.keys())
    return [f"the models or data behind {name} differ" for name in named if a.data.get(name) != b.data.get(name)]


def _counts(prompts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in prompts.items()) or "none"


def merge(a: Board, b: Board) -> Board:
    """a with the places that only b has; a place in both keeps a's numbers, with b's beside them."""
    known = {place.identity: i for i, place in enumerate(a.places)}
    new = [i for i, place in enumerate(b.places) if place.identity not in known]
    index = {i: len(a.places) + k for k, i in enumerate(new)}
    added = {b.places[i].identity for i in new}
    return replace(
        a,
        databases=(*a.databases, *b.databases),
        places=(*a.places, *(b.places[i] for i in new)),
        metrics={**a.metrics, **{name: m for name, m in b.metrics.items() if name not in a.metrics}},
        results={**a.results, **{(index[i], m, p): r for (i, m, p), r in b.results.items() if i in index}},
        rows=(*a.rows, *(row for row in b.rows if (row[2], row[3]) in added)),
        runs=(*a.runs, *b.runs),
        parity=(*a.parity, *b.parity),
        overhead=(*a.overhead, *_new_overhead(a.overhead, b.overhead)),
        overhead_elsewhere={**b.overhead_elsewhere, **a.overhead_elsewhere},
        mixtures={**a.mixtures, **{index[i]: m for i, m in b.mixtures.items() if i in index}},
        per_prompt=_join(a, b, new),
        distances=a.distances or b.distances,
        n_completions=a.n_completions + _new_share(b, new),
        notes=(*a.notes, *b.notes),
        repeats=(*a.repeats, *_repeated(known, b)),
        protocol=replace(a.protocol, checkpoints={**b.protocol.checkpoints, **a.protocol.checkpoints},
                         evaluators={**b.protocol.evaluators, **a.protocol.evaluators},
                         data={**b.protocol.data, **a.protocol.data}),
    )  # fmt: skip


def _repeated(known: Mapping[tuple[str, str], int], board: Board) -> Iterator[Repeat]:
    """What the board found at places that are known."""
    for i, place in enumerate(board.places):
        if place.identity in known:
            found = {metric: number for metric in board.metrics if (number := board.get(i, metric)) is not None}
            yield Repeat(known[place.identity], place.database, found)


def _new_overhead(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Timings of methods that were not timed before: two machines' times are not mixed within a method."""
    timed = {row["method"] for row in a}
    return [row for row in b if row["method"] not in timed]


def _new_share(board: Board, new: Sequence[int]) -> int:
    """How many completions the new places bring, from their distinct generations."""
    per = {place.generation_id for place in board.places if place.generation_id is not None}
    brought = {board.places[i].generation_id for i in new if board.places[i].generation_id is not None}
    return board.n_completions * len(brought) // max(1, len(per))


def _join(a: Board, b: Board, new: Sequence[int]) -> dict[str, PerPrompt]:
    found = {}
    for metric in dict.fromkeys([*a.per_prompt, *b.per_prompt]):
        x, y = a.per_prompt.get(metric), b.per_prompt.get(metric)
        inputs = sorted({*(x.inputs if x else ()), *(y.inputs if y else ())})
        one = x or y
        if one is None:
            continue
        tops = [_aligned(x, inputs, range(len(a.places))), _aligned(y, inputs, new)]
        above, below = (np.concatenate([top[k] for top in tops]) for k in (0, 1))
        sets = np.array([name for name, _, _ in inputs], dtype=np.str_)
        found[metric] = PerPrompt(sets, above, below, one.transform, tuple(inputs))
    return found


def _aligned(sums: PerPrompt | None, inputs: Sequence[tuple[str, int, str]], rows: Sequence[int]) -> tuple[Any, Any]:
    """Numerators and denominators of these places over these prompts, NaN where there are none."""
    shape = (len(rows), len(inputs))
    if sums is None:
        return np.full(shape, np.nan), np.full(shape, np.nan)
    at = {name: k for k, name in enumerate(sums.inputs)}
    columns = np.array([at.get(name, -1) for name in inputs], dtype=np.int64)
    taken = [np.where(columns >= 0, table[np.asarray(rows, dtype=np.int64)][:, columns], np.nan)
             for table in (sums.numerators, sums.denominators)]  # fmt: skip
    return taken[0], taken[1]
