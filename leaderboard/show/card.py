"""Boards -> a model card: front matter as the Hugging Face hub reads it (`model-index`), then tables for people."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.markdown import escaped, table
from bench.schema import Number
from leaderboard.measure.overhead import cells
from leaderboard.measure.rank import find_series, rank
from leaderboard.numbers import between, shown
from leaderboard.read.board import Board
from leaderboard.show.render import facts, source_name, tidy_command
from leaderboard.show.tables import by_method, settings

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
    from huggingface_hub import EvalResult, ModelCardData

    front = ModelCardData(
        library_name="lerpbench", pipeline_tag="text-generation", tags=list(TAGS), model_name="lerpbench",
        base_model=sorted({source for board in boards for source in hub_models(board).values()}) or None,
        eval_results=[EvalResult(**fields) for board in boards for fields in _results(board)],
    )  # fmt: skip
    head = front.to_yaml() + "\n"
    body = "\n".join(line for board in boards for line in _section(board))
    return f"---\n{head}---\n\n# Benchmarked with lerpbench\n\n{body}\n"


def hub_models(board: Board) -> dict[str, str]:
    """The suite's checkpoints that are models on the hub: name -> OWNER/NAME."""
    given = board.definition.get("checkpoints", {})
    sources = {name: source.partition("@")[0] for name, source in given.items() if isinstance(source, str)}
    return {
        name: source
        for name, source in sources.items()
        if source.count("/") == 1 and not source.startswith((".", "/", "~", "mini:"))
    }


def _results(board: Board) -> Iterator[dict[str, Any]]:
    """Each method at its best setting: a line of the model index for each metric, the setting as the configuration."""
    counts = ", ".join(f"{n} {name}" for name, n in board.protocol.prompts.items())
    best = [row.best for row in rank(board, find_series(board)) if row.best is not None]
    for place in best:
        for metric in board.columns:
            if (found := board.get(place, metric)) is not None and found.value is not None:
                yield {
                    "task_type": "text-generation", "task_name": "Text Generation",
                    "dataset_type": f"lerpbench-{board.suite}", "dataset_name": f"{board.title} ({counts} prompts)",
                    "dataset_config": f"{board.places[place].label} on {board.engine}",
                    "metric_type": metric, "metric_value": found.value, "metric_name": _metric_name(metric, found),
                }  # fmt: skip


def _metric_name(metric: str, found: Number) -> str:
    span = f", 95 % interval {between(found)}" if between(found) else ""
    return f"{metric}{span}, {found.n_scored} of {found.n_total} scored"


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
            yield cost.method, cell.batch_size, cell.new_tokens, shown(cost.ratio) + verdict


def _measured(board: Board) -> Iterator[tuple[object, object]]:
    yield from facts(board)
    for name, source in board.definition.get("checkpoints", {}).items():
        digest = board.protocol.checkpoints.get(name)
        yield f"checkpoint {name}", f"{source_name(source)}, SHA-256 {digest or 'unknown'}"
    for name, judge in board.protocol.evaluators.items():
        yield f"evaluator {name}", judge
