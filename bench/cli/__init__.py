"""The command line: what `lerpbench.api` does, with options, tables and exit codes.

A user's mistake prints one line and exits with 2; a bug keeps its traceback.  Heavy packages are imported inside
functions, so that `--help` is quick.
"""

import atexit
import os
import sys
import threading
from contextlib import suppress

# Before torch starts its threads: wait a little for the others, then sleep.  Endless spinning makes two busy programs
# on the same cores slow each other tenfold.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import typer

from bench.cli import finetuning, inspecting, publishing, running, sharing, submitting, timing
from bench.terminal import shown

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Benchmark ways of combining fine-tuned language models: how well they control text, and at what cost.\n\n"
    "Start with `lerpbench run mini`, which needs no network and no GPU, and open site/index.html.",
)
COMMANDS = {
    "Run a benchmark": (running.run, running.plan, finetuning.finetune, running.generate, running.evaluate),
    "Measure the machinery": (timing.overhead, timing.parity),
    "Read what was measured": (publishing.render, publishing.figures, publishing.compare),
    "Hand it on": (publishing.export, submitting.submit, submitting.verify, sharing.publish),
    "Look around": (inspecting.suites, inspecting.methods, inspecting.evaluators, inspecting.doctor),
}
for panel, functions in COMMANDS.items():
    for function in functions:
        app.command(rich_help_panel=panel)(function)
app.add_typer(sharing.board, name="board", rich_help_panel="Hand it on")


def command() -> None:
    """The `lerpbench` command."""
    status: str | int | None = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    _leave(status)


def main() -> None:
    """What the command does.  Raises SystemExit with its status."""
    try:
        app()
    except KeyboardInterrupt:
        print("\nlerpbench: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        from bench.schema import UserError

        if not isinstance(error, UserError):
            raise
        print(f"lerpbench: {shown(error)}", file=sys.stderr)
        sys.exit(2)


def _leave(status: str | int | None) -> None:
    """End at once where nothing runs any more: Python would first look through half a million objects for a second."""
    running = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if running or isinstance(status, str):
        sys.exit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status or 0)
