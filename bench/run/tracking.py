"""A run's numbers, told to a tracker as they come: trackio or Weights & Biases, through their packages.

Both have the same three calls: init, log, finish.  What a point scores over all prompts is one entry: `METHOD/METRIC`,
with the interval's ends, and `METHOD/PARAMETER`, so that a metric can be drawn against a method's parameter.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.progress import Tracker
from bench.schema import Estimate, Point, Suite, UserError

Told = Callable[[Point, Sequence[Estimate]], None]  # of each verdict, when it is stored
PROJECT = "lerpbench"


def untold(point: Point, estimates: Sequence[Estimate]) -> None:
    """Nobody is told."""


def find(tracker: Tracker | None) -> Any:
    """The tracker's package, or None for none.  Raises UserError where it is missing."""
    if tracker is None:
        return None
    try:
        return importlib.import_module(tracker)
    except ImportError as error:
        raise UserError(f'--log {tracker}: the package is missing; pip install "lerpbench[{tracker}]"') from error


@contextmanager
def tracked(package: Any, suite: Suite, engine: str) -> Iterator[Told]:
    """What a run is to tell, while the tracker's own run is open."""
    if package is None:
        yield untold
        return
    config = {"engine": engine, **suite.model_dump(mode="json")}
    package.init(project=PROJECT, name=f"{suite.name}-{engine}", config=config)
    try:
        yield lambda point, estimates: _log(package, point, estimates)
    finally:
        package.finish()


def _log(package: Any, point: Point, estimates: Sequence[Estimate]) -> None:
    if numbers := entry(point, estimates):
        package.log(numbers)


def entry(point: Point, estimates: Sequence[Estimate]) -> dict[str, float | str]:
    """Estimates over all prompts, by name; empty where nothing has a value."""
    found: dict[str, float | str] = {}
    for one in estimates:
        if one.prompts is None and one.value is not None:
            ends = {"": one.value, "/low": one.low, "/high": one.high}
            found |= {f"{point.method}/{one.metric}{end}": value for end, value in ends.items() if value is not None}
    if not found:
        return {}
    swept = {key: value for key, value in point.params.items() if isinstance(value, int | float)}
    return {"point": point.label, **{f"{point.method}/{key}": value for key, value in swept.items()}, **found}
