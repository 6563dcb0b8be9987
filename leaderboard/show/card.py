"""Boards -> a model card: front matter as the Hugging Face hub reads it (`model-index`), then tables for people."""

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from bench.markdown import escaped, table
from leaderboard.measure.overhead import cells
from leaderboard.measure.rank import find_series, rank
from leaderboard.read.board import Board
from leaderboard.show.readme import COLUMNS, by_method, number, settings
from leaderboard.show.render import facts, source_name, tidy_command

TAGS = ("lerpbench", "text-generation", "controllable-text-generation", "weight-interpolation", "model-merging")
CAVEATS = (
    "Numbers of different suites, engines, judges or protocols are not comparable.",
    "Each method's line is its best setting, chosen and measured on the same completions: optimistic, more so for "
    "many settings. Where intervals overlap, the first has not won.",
    "Intervals (95 %) resample prompts; not the training of the experts, the judge, or the seed.",
    "Judges are models: they are sure of themselves on broken text, and a low perplexity is not better writing.",
)


def card(boards: Sequence[Board]) -> str:
    """One card for all boards."""
    front: dict[str, Any] = {"library_name": "lerpbench", "pipeline_tag": "text-generation", "tags": list(TAGS)}
    if models := sorted({source for board in boards for source in _hub_models(board)}):
        front |= {"base_model": models}
    front |= {"model-index": [entry for board in boards for entry in _index(board)]}
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    body = "\n".join(line for board in boards for line in _section(board))
    return f"---\n{head}---\n\n# Benchmarked with lerpbench\n\n{body}\n"


def _hub_models(board: Board) -> Iterator[str]:
    for source in board.definition.get("checkpoints", {}).values():
        name = str(source).partition("@")[0]
        if name.count("/") == 1 and not name.startswith((".", "/", "~", "mini:")):
            yield name


def _index(board: Board) -> Iterator[dict[str, Any]]:
    """Each method at its best setting, as one entry of the model index."""
    counts = ", ".join(f"{n} {name}" for name, n in board.protocol.prompts.items())
    data = {"type": f"lerpbench-{board.suite}", "name": f"{board.title} ({counts} prompts)"}
    for row in rank(board, find_series(board)):
        if row.best is None:
            continue
        found = {metric: result for metric in COLUMNS if (result := board.get(row.best, metric)) is not None}
        metrics = [{"type": metric, "value": result.value, "name": _metric_name(metric, result)}
                   for metric, result in found.items() if result.value is not None]  # fmt: skip
        if metrics:
            task = {"type": "text-generation", "name": "Text Generation"}
            label = f"{board.places[row.best].label} of suite {board.suite} on {board.engine}"
            yield {"name": label, "results": [{"task": task, "dataset": dict(data), "metrics": metrics}]}


def _metric_name(metric: str, result: Any) -> str:
    span = "" if result.low is None else f", 95 % interval {result.low:.4g} to {result.high:.4g}"
    return f"{metric}{span}, {result.n_scored} of {result.n_total} scored"


def _section(board: Board) -> Iterator[str]:
    yield f"## {escaped(board.title)}\n"
    if description := str(board.definition.get("description") or "").strip():
        yield f"{escaped(description)}\n"
    yield by_method(board)
    yield f"\n### Every setting\n\n{settings(board)}\n"
    if board.overhead:
        yield "### Overhead\n\nSeconds per output token over the base's, in the same rounds.\n"
        yield table(["method", "batch size", "new tokens", "ratio to base"], _costs(board)) + "\n"
    yield "### How it was measured\n"
    yield table(["", ""], _measured(board))
    commands = dict.fromkeys(tidy_command(run.command) for run in board.runs)
    yield "".join(f"\n    {' '.join(command.split())}" for command in commands) + "\n"
    yield "### Caveats\n"
    yield from (f"- {escaped(text)}" for text in (*CAVEATS, *board.notes))
    yield ""


def _costs(board: Board) -> Iterator[tuple[object, ...]]:
    for cell in cells(board.overhead):
        for cost in cell.costs:
            verdict = ", = base" if cost.within_floor else ""
            ratio = number(cost.ratio.value, cost.ratio.low, cost.ratio.high) + verdict
            yield cost.method, cell.batch_size, cell.new_tokens, ratio


def _measured(board: Board) -> Iterator[tuple[object, object]]:
    yield from facts(board)
    for name, source in board.definition.get("checkpoints", {}).items():
        digest = board.protocol.checkpoints.get(name)
        yield f"checkpoint {name}", f"{source_name(source)}, SHA-256 {digest or 'unknown'}"
    for name, judge in board.protocol.evaluators.items():
        yield f"evaluator {name}", judge
