"""Pure: the same completions under several protocols: values, order, flips of the order, and what each rule leaves out.

At a level both protocols score the same settings, so that an order which differs is the work of the rule alone.  Only
in `own` does each protocol choose its settings too, as a paper that follows it would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from math import erfc, hypot, prod, sqrt

from bench.schema import Goal, Number
from bench.stats import holm, with_interval
from evaluators.protocols import PROTOCOLS, Protocol
from leaderboard.measure.comparison import difference
from leaderboard.measure.iso import inside, measure
from leaderboard.measure.levels import Entry, Level, reach
from leaderboard.measure.rank import Series
from leaderboard.read.board import Board

Z = 1.959964  # half the width of a 95 % interval, in standard errors
CLEAR = 0.05


@dataclass(frozen=True)
class Scored:
    """One method under one protocol; `rank` counts from 1, equal values share it."""

    entry: Entry
    result: Number
    rank: int


@dataclass(frozen=True)
class Gap:
    """The difference of two methods under one protocol; `p` is two-sided."""

    difference: Number
    p: float


@dataclass(frozen=True)
class Flip:
    """Two methods that stand in one order under one protocol and in the other under another.

    `p_holm`: the larger of the two p-values, since a flip is beyond chance only where both orders are, corrected over
    all pairs of the same table.
    """

    quantity: str
    first: Entry
    second: Entry
    gaps: Mapping[str, Gap]
    p_holm: float

    @property
    def beyond_chance(self) -> bool:
        return self.p_holm < CLEAR

    @property
    def clear_under(self) -> tuple[str, ...]:
        """The protocols under which this difference by itself is beyond chance."""
        return tuple(name for name, gap in self.gaps.items() if gap.p < CLEAR)


@dataclass(frozen=True)
class Table:
    """One quantity at one level: protocol -> methods in the order of the first protocol."""

    quantity: str
    metrics: Mapping[str, str]
    columns: Mapping[str, tuple[Scored, ...]]
    flips: tuple[Flip, ...]
    n_pairs: int

    @property
    def moved(self) -> frozenset[int]:
        """The slots of the series that take part in a flip."""
        return frozenset(entry.series.slot for flip in self.flips for entry in (flip.first, flip.second))

    def order(self, protocol: str) -> list[Scored]:
        return sorted(self.columns[protocol], key=lambda scored: scored.rank)


@dataclass(frozen=True)
class Lens:
    """The page: each protocol's own ranking, the same settings under every protocol, and what rules leave out."""

    protocols: Mapping[str, Protocol]
    own: Table | None
    levels: tuple[tuple[Level, tuple[Table, ...]], ...]
    left_out: tuple["LeftOut", ...]

    @property
    def flips(self) -> list[Flip]:
        """Every flip at equal settings."""
        return [flip for _, tables in self.levels for table in tables for flip in table.flips]

    @property
    def n_pairs(self) -> int:
        return sum(table.n_pairs for _, tables in self.levels for table in tables)

    @property
    def quantities(self) -> list[str]:
        return _quantities(self.protocols)


@dataclass(frozen=True)
class LeftOut:
    """What a protocol's metric did not count: over all settings, and by method with the setting that loses most."""

    protocol: str
    quantity: str
    metric: str
    n_dropped: int
    n_total: int
    by_series: tuple[tuple[Series, int, int, str | None], ...]


def look(
    board: Board, series: Sequence[Series], levels: Sequence[Level], known: Mapping[str, Protocol] = PROTOCOLS
) -> Lens:
    """The board, at these levels, under every known protocol of which it has at least one metric."""
    stored = {name: p for name, p in known.items() if any(metric in board.metrics for metric in p.metrics.values())}
    shared = levels if len(stored) > 1 else []
    tables = [
        (level, tuple(table for quantity in _quantities(stored)
                      if (table := _table(board, dict.fromkeys(stored, level), stored, quantity)) is not None))
        for level in shared
    ]  # fmt: skip
    left_out = [_left_out(board, series, name, quantity, metric)
                for quantity in _quantities(stored) for name, p in stored.items()
                if (metric := p.metrics.get(quantity, "")) in board.metrics]  # fmt: skip
    return Lens(_without(board, stored), _own(board, series, stored), tuple(tables), tuple(left_out))


def _without(board: Board, protocols: Mapping[str, Protocol]) -> dict[str, Protocol]:
    """The protocols less the quantities, and their rules, of which the board has no metric."""
    gone = {q for q in _quantities(protocols) if not any(p.metrics.get(q) in board.metrics for p in protocols.values())}

    def kept(of: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in of.items() if name not in gone}

    return {name: p.model_copy(update={"metrics": kept(p.metrics), "rules": kept(p.rules)})
            for name, p in protocols.items()}  # fmt: skip


def _quantities(protocols: Mapping[str, Protocol]) -> list[str]:
    return list(dict.fromkeys(quantity for p in protocols.values() for quantity in p.metrics))


def _own(board: Board, series: Sequence[Series], protocols: Mapping[str, Protocol]) -> Table | None:
    """Reach as each protocol defines it: by its metrics for the goal's control and price; None if it knows neither."""
    quantities = {metric: quantity for p in protocols.values() for quantity, metric in p.metrics.items()}
    control, price = quantities.get(board.goal.control), quantities.get(board.goal.price)
    if control is None or price is None:
        return None
    levels = {
        name: reach(board, series, goal=Goal(control=p.metrics[control], cost=(p.metrics[price],),
                                             direction=board.goal.direction))
        for name, p in protocols.items()
    }  # fmt: skip
    return _table(board, levels, protocols, control)


def _table(board: Board, levels: Mapping[str, Level], protocols: Mapping[str, Protocol], quantity: str) -> Table | None:
    """None unless two protocols score two methods."""
    metrics = {n: p.metrics[quantity] for n, p in protocols.items() if p.metrics.get(quantity) in board.metrics}
    columns = {name: _score(board, levels[name], metric) for name, metric in metrics.items()}
    slots = set.intersection(*(set(column.results) for column in columns.values())) if len(columns) > 1 else set()
    if len(slots) < 2:
        return None
    scored = {name: column.ranked(slots) for name, column in columns.items()}
    (order, *_) = scored.values()
    pairs = list(combinations([one.entry for one in order], 2))
    flips = [flip for one, other in combinations(columns, 2)
             for flip in _flips(quantity, pairs, {one: columns[one], other: columns[other]})]  # fmt: skip
    return Table(quantity, metrics, scored, tuple(flips), len(pairs))


def _flips(quantity: str, pairs: Sequence[tuple[Entry, Entry]], columns: Mapping[str, "_Column"]) -> list[Flip]:
    """The pairs that two protocols order differently; a tie under either is no flip."""
    gaps = [{name: column.gap(a.series.slot, b.series.slot) for name, column in columns.items()} for a, b in pairs]
    flipped = [prod(gap.difference.value or 0.0 for gap in of.values()) < 0 for of in gaps]
    p = holm([max(gap.p for gap in of.values()) if is_ else 1.0 for of, is_ in zip(gaps, flipped, strict=True)])
    found = zip(pairs, gaps, flipped, p, strict=True)
    return [Flip(quantity, a, b, of, adjusted) for (a, b), of, is_, adjusted in found if is_]


@dataclass(frozen=True)
class _Column:
    """One metric at one level, by the series' slots; `paired`: differences, where sums by prompt are stored."""

    lower: bool
    entries: Mapping[int, Entry]
    results: Mapping[int, Number]
    paired: Mapping[tuple[int, int], Gap]

    def ranked(self, slots: set[int]) -> tuple[Scored, ...]:
        """These series, best first."""
        value = {slot: (1 if self.lower else -1) * (self.results[slot].value or 0.0) for slot in slots}
        return tuple(
            Scored(self.entries[slot], self.results[slot], 1 + sum(v < value[slot] for v in value.values()))
            for slot in sorted(slots, key=lambda slot: (value[slot], slot))
        )

    def gap(self, a: int, b: int) -> Gap:
        return self.paired.get((a, b)) or separate(self.results[a], self.results[b])


def _score(board: Board, level: Level, metric: str) -> _Column:
    entries = {entry.series.slot: entry for entry in level.entries}
    results = {} if level.half else {s: board.get(e.setting.left, metric, level.prompts) for s, e in entries.items()}
    paired = {}
    if metric in board.per_prompt:
        sums = board.per_prompt[metric]
        values, drawn, n = measure(sums, [entry.setting for entry in level.entries], level.rows(sums))
        for (i, a), (j, b) in permutations(enumerate(entries), 2):
            pair = difference(metric, values, drawn, n, i, j)
            if pair is not None:
                paired[a, b] = Gap(pair.difference, pair.p)
        if level.half:
            results = {slot: with_interval(values[k], drawn[:, k], n) for k, slot in enumerate(entries)}
    known = {slot: result for slot, result in results.items() if result is not None and result.value is not None}
    return _Column(board.metrics[metric].direction == "lower", entries, known, paired)


def separate(a: Number, b: Number) -> Gap:
    """The difference of two results from their own intervals alone (Zou and Donner 2008, for independent estimates).

    Methods that share prompts and random numbers are more alike than that, so this is wide.  p: normal, from the width.
    """
    x, y = a.value or 0.0, b.value or 0.0
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Gap(Number(x - y), 1.0)
    down, up = hypot(x - a.low, b.high - y), hypot(a.high - x, y - b.low)
    spread = (down + up) / (2 * Z)
    return Gap(Number(x - y, x - y - down, x - y + up), erfc(abs(x - y) / spread / sqrt(2)) if spread > 0 else 1.0)


def _left_out(board: Board, series: Sequence[Series], protocol: str, quantity: str, metric: str) -> LeftOut:
    """Each stored generation counts once, whichever places stand for it."""

    def counts(places: Sequence[int]) -> list[tuple[int, int, int]]:
        unique = {(board.places[i].store, board.places[i].generation_id): i for i in reversed(places)}
        found = [(i, board.get(i, metric)) for i in unique.values()]
        return [(r.n_total - r.n_scored, r.n_total, i) for i, r in found if r is not None]

    by_series = []
    for s in series:
        rows = counts(s.places)
        worst = max(rows, key=lambda row: (row[0], -row[2]), default=(0, 0, 0))
        label = inside(board, worst[2]) if worst[0] and s.kind != "point" else None
        by_series.append((s, sum(row[0] for row in rows), sum(row[1] for row in rows), label))
    every = counts(range(len(board.places)))
    return LeftOut(protocol, quantity, metric, sum(row[0] for row in every), sum(row[1] for row in every),
                   tuple(by_series))  # fmt: skip
