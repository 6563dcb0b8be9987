"""lerpbench from Python: what the commands do, as functions, and what a method or an evaluator of one's own needs.

    import lerpbench as lb

    board = lb.run("mini", db="results.db")
    pandas.DataFrame(board.rows)

Everything is in `lerpbench.api`, which is loaded when a first name is asked for; docs/PYTHON.md shows it at work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lerpbench.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and name in __dir__():
        return getattr(import_module("lerpbench.api"), name)
    raise AttributeError(f"module 'lerpbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(import_module("lerpbench.api").__all__)
