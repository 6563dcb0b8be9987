"""Pure: the settings at which methods may be compared: at their reach, at equal strength, KL to the base, or step.

Alpha means something else in each method, so a comparison has to say what it holds equal; a level is one such choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.schema import Goal
from leaderboard.measure.divergence import rank_at_divergences
from leaderboard.measure.iso import Setting, halves, inside, rank_at_targets
from leaderboard.measure.rank import PRICE, Series, affordable, find_series
from leaderboard.names import DIVERGENCE, title
from leaderboard.numbers import plain
from leaderboard.read.board import ALL, Board, PerPrompt


@dataclass(frozen=True)
class Entry:
    """One method where a level compares it."""

    series: Series
    setting: Setting
    label: str

    @property
    def place(self) -> int | None:
        """The measured place, or None between two of them."""
        return self.setting.left if self.setting.left == self.setting.right else None


@dataclass(frozen=True)
class Level:
    """Methods at comparable settings.  `half`: only the prompts that did not choose the settings measure them."""

    slug: str
    title: str
    about: str
    entries: tuple[Entry, ...]
    prompts: str = ALL
    half: bool = False

    def rows(self, sums: PerPrompt) -> NDArray[np.bool_]:
        """The prompts that measure."""
        return halves(sums, self.prompts)[1] if self.half else sums.rows(self.prompts)


def find_levels(board: Board, series: Sequence[Series], prompts: str = ALL) -> list[Level]:
    """Every level that at least two methods share."""
    found = [
        reach(board, series, prompts),
        *_targets(board, series, prompts),
        *_divergences(board, series, prompts),
        *_steps(board, series, prompts),
    ]
    return [level for level in found if len(level.entries) > 1]


def reach(board: Board, series: Sequence[Series], prompts: str = ALL, goal: Goal | None = None) -> Level:
    """Each method where it is strongest within the price limit, the strongest first."""
    goal = goal or board.goal
    best = [(s, ranked[-1]) for s in series if (ranked := affordable(board, s.places, prompts, goal)[0])]
    best.sort(key=lambda found: (-goal.sign * (board.value(found[1], goal.control, prompts) or 0.0), found[0].name))
    most = "largest" if goal.sign > 0 else "smallest"
    about = (f"Each method at its {most} {board.goal.control} within {PRICE:g} times the base's {board.goal.price}, "
             "as on the results page.")  # fmt: skip
    return Level("reach", "Reach", about, tuple(_measured(board, s, i) for s, i in best), prompts)


def at_places(board: Board, places: Sequence[int], prompts: str = ALL) -> Level:
    """These places, whatever they have in common."""
    owner = {i: s for s in find_series(board) for i in s.places}
    return Level("places", "As chosen", "", tuple(_measured(board, owner[i], i) for i in places), prompts)


def _measured(board: Board, series: Series, place: int) -> Entry:
    models = board.places[place].recipe.models_per_token
    return Entry(series, Setting(place, place, 0.0, inside(board, place), models), board.places[place].label)


def _targets(board: Board, series: Sequence[Series], prompts: str) -> list[Level]:
    up, down = rank_at_targets(board, series, prompts)
    about = "Settings chosen on one half of the prompts, numbers from the other half, as on the ranking page."
    found, name = [], title(board.goal.control)
    for target, sign, words in [*((t, "up", "or more") for t in up), *((t, "down", "or less") for t in down)]:
        settings = [(row.series, row.setting) for row in target.rows if row.setting is not None]
        entries = tuple(_chosen(board, s, setting) for s, setting in settings if s.kind != "point")
        value = plain(target.value)
        found.append(Level(f"{sign}-{value}", f"{name} {value} {words}", about, entries, prompts, True))
    return found


def _divergences(board: Board, series: Sequence[Series], prompts: str) -> list[Level]:
    about = "Settings with the same KL to the base; numbers from the half of the prompts that chose none of them."
    return [
        Level(f"kl-{plain(target.value)}", f"{title(DIVERGENCE)} {plain(target.value)} nats", about,
              tuple(_chosen(board, row.series, row.setting) for row in target.rows if row.setting is not None),
              prompts, True)
        for target in rank_at_divergences(board, series, prompts)
    ]  # fmt: skip


def _chosen(board: Board, series: Series, setting: Setting) -> Entry:
    if setting.left == setting.right:
        return _measured(board, series, setting.left)
    return Entry(series, setting, f"{series.name} at {setting.label}")


def _steps(board: Board, series: Sequence[Series], prompts: str) -> list[Level]:
    """Curves that have a setting at the same distance along theta+ - theta-."""
    at: dict[float, dict[int, Entry]] = {}
    for s in series:
        for i in s.places if s.kind == "curve" else ():
            at.setdefault(round(board.places[i].displacement, 9), {}).setdefault(s.slot, _measured(board, s, i))
    about = "Settings at the same distance along θ⁺ − θ⁻: alpha of g2 and DExperts, alpha − ½ of g1."  # noqa: RUF001
    return [
        Level(
            f"step-{plain(step)}",
            f"Step {plain(step)}".replace("-", "\N{MINUS SIGN}"),
            about,
            tuple(entries.values()),
            prompts,
        )
        for step, entries in sorted(at.items())
    ]
