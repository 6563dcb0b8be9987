"""Completions -> script files, one a method, that the completions page loads as it needs them.

A page opened from the file system may not fetch, but may add a script; so each file is one call with JSON in it.
Texts are hostile: JSON leaves no `<` in a script, and the page's script only ever sets text, never markup.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.schema import Prompt
from bench.store.read import Reader
from leaderboard.measure.iso import inside
from leaderboard.measure.rank import Series
from leaderboard.numbers import shown
from leaderboard.read.board import Board, Place

BUDGET_BYTES = 1_900_000  # of text in a site; beside Plotly's 4.8 MB and the pages it keeps a site below 8 MB


@dataclass(frozen=True)
class Selection:
    """The part of the completions that the site carries: these prompts, the first `samples` of each."""

    prompts: tuple[tuple[int, str, int, str], ...]  # input id, set, row, text
    samples: int
    n_prompts: int
    n_samples: int

    @property
    def whole(self) -> bool:
        return len(self.prompts) == self.n_prompts and self.samples == self.n_samples


def script_json(value: Any) -> str:
    """JSON that may stand in a script element or file: nothing in it ends the script or a line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"),
                              ("\u2029", "\\u2029")):  # fmt: skip
        text = text.replace(character, escape)
    return text.encode("utf-8", "replace").decode("utf-8")


def select(stores: Sequence[Reader], board: Board, budget: int = BUDGET_BYTES) -> Selection:
    """As much as fits the budget: fewer samples of every prompt first, then every k-th prompt of each set."""
    generations = distinct_generations(board)
    if not generations:
        return Selection((), 0, 0, 0)
    listed = _listed(stores, generations)
    each = _bytes_per_completion(stores[generations[0].store], generations[0])
    per_place = max(1, int(budget / each / len(generations)))
    samples = max(1, min(board.samples, per_place // max(1, len(listed))))
    kept = listed if len(listed) <= per_place else _spread(listed, per_place)
    return Selection(tuple(kept), samples, len(listed), board.samples)


def _listed(stores: Sequence[Reader], generations: Sequence[Place]) -> list[tuple[int, str, int, str]]:
    """The prompts of all generations; those with equally many prompts have the same ones (one suite made them)."""
    unique: dict[tuple[str, int, str], tuple[int, str, int, str]] = {}
    seen: set[int] = set()
    for place in generations:
        store = stores[place.store]
        if (n := store.n_prompts(_generation(place))) not in seen:
            seen.add(n)
            for id_, prompt, _ in store.prompts_of(place.generation_id):
                unique.setdefault((prompt.set, prompt.row, prompt.text), (id_, prompt.set, prompt.row, prompt.text))
    return list(unique.values())


def _spread(prompts: list[tuple[int, str, int, str]], n: int) -> list[tuple[int, str, int, str]]:
    return [prompts[i * len(prompts) // n] for i in range(n)]


def distinct_generations(board: Board) -> list[Place]:
    """The first place of each stored generation; equal mixtures share one."""
    found: dict[tuple[int, int], Place] = {}
    for place in board.places:
        if place.generation_id is not None:
            found.setdefault((place.store, place.generation_id), place)
    return list(found.values())


def _bytes_per_completion(store: Reader, place: Place) -> float:
    return store.mean_text_bytes(_generation(place)) + 10  # quotes, comma, escapes, length, score


def _generation(place: Place) -> int:
    if place.generation_id is None:
        raise LookupError(f"{place.label} has no completions")
    return place.generation_id


def index(board: Board, series: Sequence[Series], selection: Selection) -> dict[str, Any]:
    """What the completions page knows before it loads a text: prompts, and where each place's texts are."""
    owners = {_key(board.places[i]): s.slug for s in reversed(series) for i in s.places}
    return {
        "prompts": [[prompts, row, text] for _, prompts, row, text in selection.prompts],
        "samples": selection.samples,
        "series": [{"name": s.name, "slug": s.slug, "places": list(s.places)} for s in series],
        "places": [
            {
                "label": p.label,
                "at": inside(board, i),
                "about": _about(board, i),
                "key": _key(p),
                "file": owners[_key(p)] if p.generation_id is not None else None,
            }
            for i, p in enumerate(board.places)
        ],
        "base": board.base,
        "score": board.goal.control if board.goal.control in board.metrics else None,
    }


def _about(board: Board, place: int) -> str:
    """The point in numbers, as a reader of its texts wants them."""
    found = [(metric, board.get(place, metric)) for metric in board.columns]
    told = [f"{metric} {shown(r)}" for metric, r in found if r is not None and r.value is not None]
    return f"On all prompts: {', '.join(told)}." if told else ""


def _key(place: Place) -> str:
    return f"{place.store}.{place.generation_id}"


def files(
    stores: Sequence[Reader], board: Board, series: Sequence[Series], selection: Selection
) -> Iterator[tuple[str, str]]:
    """(name, content) of each script file; a generation that several places share is written once."""
    done: set[str] = set()
    for s in series:
        texts = {}
        for i in s.places:
            place = board.places[i]
            if place.generation_id is not None and _key(place) not in done:
                done.add(_key(place))
                texts[_key(place)] = _texts(stores[place.store], place, selection, board.goal.control)
        if texts:
            yield f"{s.slug}.js", f"lerpbench.add({script_json(s.slug)},{script_json(texts)});\n"


def _texts(store: Reader, place: Place, selection: Selection, control: str) -> Mapping[str, list[Any]]:
    """Columns over (prompt, sample), null where nothing is stored: text, tokens, finish reason, score in hundredths."""
    size = len(selection.prompts) * selection.samples
    columns: dict[str, list[Any]] = {"t": [None] * size, "n": [None] * size, "f": [None] * size, "s": [None] * size}
    prompts = [Prompt(set=name, row=row, text=text) for _, name, row, text in selection.prompts]
    found = store.shown_completions(place.id, _generation(place), prompts, selection.samples, control)
    for prompt, sample, text, n_tokens, finish, score in found:
        k = prompt * selection.samples + sample
        columns["t"][k], columns["n"][k], columns["f"][k] = text, n_tokens, 1 if finish == "stop" else 0
        columns["s"][k] = None if score is None else round(100 * score)
    return {name: column for name, column in columns.items() if any(x is not None for x in column)}
