"""What the commands share: options, checked input, open stores, what goes on record."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

import evaluators as evaluator_table
import methods as method_table
from bench import engines
from bench.schema import Suite, UserError
from bench.store.write import Store
from bench.suite.load import load_suite

if TYPE_CHECKING:
    from bench.run.prepare import Work
from bench.run.worker import EngineFactory

out = Console(markup=False, width=None if sys.stdout.isatty() else 140)

SuiteArgument = Annotated[str, typer.Argument(help="a packaged suite's name (`lerpbench suites`) or a YAML file")]
DbOption = Annotated[Path, typer.Option("--db", help="the SQLite file that keeps everything measured")]
SiteOption = Annotated[Path, typer.Option("--site", help="the folder for the leaderboard's pages")]
EngineOption = Annotated[str, typer.Option("--engine", help="auto, transformers or vllm")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="only this method of the suite; may be repeated")]
LimitOption = Annotated[int | None, typer.Option("--limit-prompts", min=1, help="only the first N prompts of each set")]


def loaded(suite: str) -> Suite:
    """The checked suite of a name or path."""
    return load_suite(suite, method_table.registry(), evaluator_table.registry())


def prepared(suite: Suite, engine: str, only: Sequence[str] | None = None, limit: int | None = None) -> "Work":
    """Everything found and checked, before anything is written."""
    chosen = engines.choose(engine)
    quieten()
    from bench.run.prepare import prepare

    registries = method_table.registry(), evaluator_table.registry()
    return prepare(suite, *registries, chosen, engines.engine_version(chosen), only or (), limit)


def opener(name: str, work: "Work", device: str) -> "EngineFactory":
    """What opens the named engine on the work's checkpoints."""
    return lambda: engines.engine_class(name)(work.checkpoints, work.suite.dtype, device)


def this_environment(store: Store, device: str) -> int:
    """The id of what this process runs with."""
    import torch

    from bench import environment

    details = environment.describe(device_name(device), torch.get_num_threads())
    return store.environment(details, environment.digest(details))


def this_command() -> str:
    return " ".join(["lerpbench", *sys.argv[1:]])


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


@contextmanager
def opened(db: Path) -> Iterator[Store]:
    store = Store.open(db)
    try:
        yield store
    finally:
        store.close()


def require_folder(folder: Path, option: str) -> None:
    """Raise UserError unless the folder, which the option names, can be made and written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".lerpbench"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder with {option}"
        ) from error


def quieten() -> None:
    """Keep the libraries' own notes and bars off the terminal."""
    import warnings

    import datasets
    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
