"""What the commands share: options, and how anything gets on the screen."""

import os
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from bench.terminal import printable, shown

SuiteArgument = Annotated[str, typer.Argument(help="a packaged suite's name (`lerpbench suites`) or a YAML file")]
DbOption = Annotated[Path, typer.Option("--db", help="the SQLite file that keeps everything measured")]
SiteOption = Annotated[Path, typer.Option("--site", help="the folder for the leaderboard's pages")]
UrlOption = Annotated[str, typer.Option("--url", help="where the site will be read: shared links name it in full")]
LiveOption = Annotated[
    bool, typer.Option("--live/--no-live", help="write first pages when a few points are stored, or only at the end")
]
EngineOption = Annotated[str, typer.Option("--engine", help="auto, transformers or vllm; auto: vllm where a GPU is")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="only this method of the suite; may be repeated")]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit-prompts", min=1, help="only the first N prompts of each set; kept apart from the full suite"),
]

WorkersOption = Annotated[
    str | None,
    typer.Option("--workers", envvar="LERPBENCH_WORKERS",
                 help="so many processes or GPUs at once, through Ray; auto: every GPU, else every core"),
]  # fmt: skip
RayOption = Annotated[
    str | None, typer.Option("--ray", help="the address of a Ray cluster; by default this machine alone")
]
ParallelOption = Annotated[
    int | None, typer.Option("--tensor-parallel", min=1, help="GPUs that share one vLLM engine's weights")
]


def _job(
    suite: SuiteArgument = "mini",
    db: DbOption = Path("results.db"),
    engine: EngineOption = "auto",
    only: OnlyOption = None,
    limit_prompts: LimitOption = None,
    workers: WorkersOption = None,
    ray: RayOption = None,
    tensor_parallel: ParallelOption = None,
) -> None:
    """The parameters of every command that works on a suite."""


def on_suite(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose `**job` takes the parameters of every command that works on a suite."""
    own = [p for p in signature(command).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]

    @wraps(command)
    def on_this_machine(*, tensor_parallel: int | None = None, **given: Any) -> None:
        if tensor_parallel is not None:
            os.environ["LERPBENCH_VLLM_TENSOR_PARALLEL"] = str(tensor_parallel)
        command(**given)

    on_this_machine.__dict__["__signature__"] = Signature([*signature(_job).parameters.values(), *own])
    on_this_machine.__annotations__ = command.__annotations__ | _job.__annotations__
    return on_this_machine


class Screen(Console):
    """A console on which the text of a table moves no cursor and changes no colour."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = "\n".join(map(printable, segment.text.split("\n")))
            yield segment if segment.control else Segment(text, segment.style)


out = Screen(markup=False, width=None if sys.stdout.isatty() else 140)


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print lines, by default on standard output; what is in a line stays there."""
    for line in lines:
        print(shown(line), file=file)


def this_command() -> str:
    return " ".join(["lerpbench", *sys.argv[1:]])
