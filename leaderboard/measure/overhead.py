"""Pure: the overhead ledger's lines -> the tables of the overhead page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.schema import Number
from leaderboard.measure.rank import Series, lines_of
from leaderboard.read.board import Board

SHOWN = "time_per_output_token_s"
MODEL = "roofline_s_per_token"
ACCEPTANCE, SPEED_UP = "draft_acceptance", "draft_speed_up"
THROUGHPUT, JOULES, MONEY = "tokens_per_s", "joules_per_million_tokens", "money_per_million_tokens"
LEAVES_ONE = 1.15
LABEL_HEIGHT = 1 / 15  # of a chart
NARROWEST = 720
DETAILS = (
    ("time_to_first_token_s", "First token", 1e3, "ms"),
    ("time_per_output_token_s", "Each further token", 1e3, "ms"),
    (THROUGHPUT, "Throughput", 1.0, "tokens/s"),
    ("peak_memory_bytes", "Peak memory", 2**-20, "MiB"),
    ("amortisation_tokens", "Mixing has paid off after", 1.0, "tokens"),
    (JOULES, "Energy", 1.0, "J a million tokens"),
    (MONEY, "Price", 1.0, "a million tokens"),  # after the suite's currency
    ("roofline_s_per_token", "Least time by the model", 1e3, "ms a token"),
)


@dataclass(frozen=True)
class Cost:
    """One method at one batch size and length: its time per token over the base's, and the details behind it."""

    method: str
    ratio: Number
    within_floor: bool
    details: Mapping[str, float | None]


@dataclass(frozen=True)
class Cell:
    """One batch size and output length, with the noise floor: base over base, low and high.

    `busy` says how much other programs used the machine while it was timed; None on a quiet one.
    """

    batch_size: int
    new_tokens: int
    floor: Sequence[float] | None
    busy: str | None
    costs: tuple[Cost, ...]
    currency: str
    remarks: tuple[str, ...]  # on money and joules

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Metric, label and unit of the details; without money and joules where there are none."""
        known = {metric for cost in self.costs for metric, value in cost.details.items() if value is not None}
        return [(metric, label, f"{self.currency} {unit}".strip() if metric == MONEY else unit)
                for metric, label, _, unit in DETAILS if metric in known or metric not in (MONEY, JOULES)]  # fmt: skip

    @property
    def widest(self) -> float:
        return max((c.ratio.high or c.ratio.value or 0.0 for c in self.costs), default=0.0)


@dataclass(frozen=True)
class Ledger:
    """What the page shows of one engine."""

    engine: str
    cells: Sequence["Cell"]
    scaling: Sequence["Scaling"]
    switches: Sequence[tuple[str, list[float | None]]]
    drafts: Sequence["Drafted"]


def ledgers(board: Board) -> list[Ledger]:
    """The board's engine first, then others on which the suite was timed."""
    found = {board.engine: board.overhead, **dict(sorted(board.overhead_elsewhere.items()))}
    return [Ledger(engine, cells(lines), scaling(lines), once(lines), drafts(lines)) for engine, lines in found.items()]


def cells(lines: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """By output length and batch size; methods in the order they were timed."""
    places = sorted({(line["new_tokens"], line["batch_size"]) for line in lines if line["metric"] == SHOWN})
    return [_cell([x for x in lines if (x["new_tokens"], x["batch_size"]) == place]) for place in places]


def _cell(lines: Sequence[Mapping[str, Any]]) -> Cell:
    methods = dict.fromkeys(line["method"] for line in lines)
    timed = next(line for line in lines if line["metric"] == SHOWN)
    return Cell(
        batch_size=lines[0]["batch_size"],
        new_tokens=lines[0]["new_tokens"],
        floor=timed["floor"],
        busy=_load(timed) if timed["busy"] else None,
        costs=tuple(_cost(method, [x for x in lines if x["method"] == method]) for method in methods),
        currency=_currency(lines),
        remarks=_remarks(lines),
    )


def _currency(lines: Sequence[Mapping[str, Any]]) -> str:
    return next((str(x["currency"]) for x in lines if x["metric"] == MONEY), "")


def _remarks(lines: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Where money and joules come from, or why there are none."""
    money = next((x for x in lines if x["metric"] == MONEY), None)
    energy = next((x for x in lines if x["metric"] == JOULES), None)
    priced = "No price: the suite names none."
    if money is not None:
        priced = f"Price: {money['per_hour']:g} {money['currency']} an hour."
    if energy is None or energy["value"] is None:
        return priced, f"No joules: {(energy and energy['reason']) or 'no power reading'}."
    return priced, f"Joules: {energy['power']}, all that it drew."


def _load(line: Mapping[str, Any]) -> str:
    before, others = (
        "unknown" if line[key] is None else f"{line[key]:.1f}" for key in ("load_average", "others_cores")
    )
    return f"load before: {before}; cores that others took meanwhile: {others}"


def _cost(method: str, lines: Sequence[Mapping[str, Any]]) -> Cost:
    by_metric = {line["metric"]: line for line in lines}
    shown = by_metric.get(SHOWN, {})
    n = shown.get("n_rounds") or 0
    ratio = Number(shown.get("ratio_to_base"), shown.get("ratio_low"), shown.get("ratio_high"), n, n)
    scaled = {metric: _scaled(by_metric.get(metric, {}).get("value"), scale) for metric, _, scale, _ in DETAILS}
    return Cost(method, ratio, bool(shown.get("within_floor")), scaled)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


@dataclass(frozen=True)
class Curve:
    """A method's ratio to the base along an axis; `points` are (value on the axis, ratio)."""

    method: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scaling:
    """Curves over one axis, the other things equal, with the simple model's curves beside them."""

    title: str
    axis: str
    measured: tuple[Curve, ...]
    model: tuple[Curve, ...]

    @property
    def top(self) -> float:
        """The ratio at the upper edge."""
        return 1.08 * max([1.2, *(ratio for curve in (*self.measured, *self.model) for _, ratio in curve.points)])

    @property
    def width(self) -> int:
        """Of the drawing: long names need room behind the ends of the curves."""
        return max([NARROWEST, *(578 + 7 * len(name) for name, _ in self.labels)])

    @property
    def labels(self) -> list[tuple[str, float]]:
        """Names at the ends of the curves that leave 1, pushed up where they would cover each other."""
        ends = sorted(
            (curve.points[-1][1], curve.method) for curve in self.measured if curve.points[-1][1] > LEAVES_ONE
        )
        found: list[tuple[str, float]] = []
        for ratio, method in ends:
            free = found[-1][1] + LABEL_HEIGHT * self.top if found else 0.0
            found.append((method, max(ratio, free)))
        return found


def scaling(lines: Sequence[Mapping[str, Any]]) -> list[Scaling]:
    """The ratio against batch size, output length and members; an axis with fewer than two values is left out."""
    sizes, lengths = _values(lines, "batch_size"), _values(lines, "new_tokens")
    if not sizes or not lengths:
        return []
    found = [
        _along(lines, f"Batch size, {lengths[-1]} new tokens", "batch_size", {"new_tokens": lengths[-1]}),
        _along(lines, f"New tokens, batch {sizes[-1]}", "new_tokens", {"batch_size": sizes[-1]}),
        _members(lines, sizes[-1], lengths[-1]),
    ]
    return [plot for plot in found if any(len(curve.points) > 1 for curve in plot.measured)]


def _values(lines: Sequence[Mapping[str, Any]], key: str) -> list[int]:
    return sorted({line[key] for line in lines if line["metric"] == SHOWN})


def _along(lines: Sequence[Mapping[str, Any]], title: str, axis: str, fixed: Mapping[str, int]) -> Scaling:
    kept = [line for line in lines if all(line[key] == value for key, value in fixed.items())]
    return Scaling(title, axis.replace("_", " "), _curves(kept, axis, SHOWN), _curves(kept, axis, MODEL))


def _curves(lines: Sequence[Mapping[str, Any]], axis: str, metric: str) -> tuple[Curve, ...]:
    by_method: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        if (
            line["metric"] == metric
            and line["ratio_to_base"] is not None
            and line["role"] not in ("ensemble", "strength")
        ):
            by_method.setdefault(line["method"], []).append((line[axis], line["ratio_to_base"]))
    return tuple(Curve(method, tuple(sorted(points))) for method, points in by_method.items())


def _members(lines: Sequence[Mapping[str, Any]], batch_size: int, new_tokens: int) -> Scaling:
    """One curve: the base is an ensemble of one."""
    kept = [x for x in lines if (x["batch_size"], x["new_tokens"]) == (batch_size, new_tokens)]

    def points(metric: str) -> tuple[tuple[float, float], ...]:
        found = {
            x["members"]: x["ratio_to_base"]
            for x in kept
            if x["metric"] == metric and x["role"] in ("base", "ensemble")
        }
        return tuple(sorted((m, ratio) for m, ratio in found.items() if ratio is not None))

    title = f"Members of the ensemble, batch {batch_size}, {new_tokens} new tokens"
    measured, model = Curve("ensemble", points(SHOWN)), Curve("ensemble", points(MODEL))
    return Scaling(title, "members", (measured,), (model,))


def once(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[float | None]]]:
    """What depends on no batch, by method: milliseconds to start, milliseconds and MiB to switch to its point."""
    wanted = (("start_up_s", 1e3), ("switch_s", 1e3), ("switch_memory_bytes", 2**-20))
    found = {(x["method"], x["metric"]): x["value"] for x in lines if not x["batch_size"]}
    methods = dict.fromkeys(method for method, _ in found)
    return [(m, [_scaled(found.get((m, metric)), scale) for metric, scale in wanted]) for m in methods]


@dataclass(frozen=True)
class Drafted:
    """What a draft of k tokens is worth at one batch size and length: as predicted, and as measured."""

    method: str
    batch_size: int
    new_tokens: int
    k: int
    against: str
    acceptance: float | None
    expected_acceptance: float
    quick: Number  # times as quick as without the draft
    expected_quick: float


def drafts(lines: Sequence[Mapping[str, Any]]) -> list[Drafted]:
    """By output length and batch size; methods in the order they were timed."""
    found = []
    shares = {(x["method"], x["batch_size"], x["new_tokens"]): x for x in lines if x["metric"] == ACCEPTANCE}
    for line in lines:
        if line["metric"] == SPEED_UP:
            method, batch, tokens = line["method"], line["batch_size"], line["new_tokens"]
            share, n = shares[method, batch, tokens], line["n_rounds"]
            quick = Number(line["value"], line["low"], line["high"], n, n)
            found.append(Drafted(method, batch, tokens, line["k"], line["against"], share["value"], share["predicted"],
                                 quick, line["predicted"]))  # fmt: skip
    return sorted(found, key=lambda one: (one.new_tokens, one.batch_size))


# ---------------------------------------------------------------------------------------------- for a chosen strength


@dataclass(frozen=True)
class Spending:
    """What serving takes at the largest batch and length that were timed.

    `columns`: metric and title of what was measured; `by_series`: name -> metric -> number; `floor`: of the throughput,
    base over base; `as_base`: series that lie within it.
    """

    batch_size: int
    new_tokens: int
    floor: Sequence[float] | None
    columns: tuple[tuple[str, str], ...]
    by_series: Mapping[str, Mapping[str, Number]]
    as_base: frozenset[str]
    remarks: tuple[str, ...]


def spending(board: Board, series: Sequence[Series]) -> Spending | None:
    """Tokens a second, and money and joules where they are known; None where nothing was timed."""
    timed = [x for x in board.overhead if x["metric"] == THROUGHPUT]
    if not timed:
        return None
    cell = max((x["batch_size"], x["new_tokens"]) for x in timed)
    here = [x for x in board.overhead if (x["batch_size"], x["new_tokens"]) == cell]
    titles = {THROUGHPUT: "Tokens/s", MONEY: f"{_currency(here)} a million tokens", JOULES: "J a million tokens"}
    known = {x["metric"] for x in here if x["value"] is not None}
    by_series = {}
    as_base = set()
    for one in series:
        lines = {x["metric"]: x for x in lines_of(board, one) if (x["batch_size"], x["new_tokens"]) == cell}
        by_series[one.name] = {metric: _number(lines.get(metric)) for metric in titles}
        if lines.get(THROUGHPUT, {}).get("within_floor") and lines[THROUGHPUT]["role"] != "base":
            as_base.add(one.name)
    floor = next((x["floor"] for x in here if x["metric"] == THROUGHPUT and x["floor"]), None)
    columns = tuple((metric, title) for metric, title in titles.items() if metric in known)
    return Spending(*cell, floor, columns, by_series, frozenset(as_base), _remarks(here))


def _number(line: Mapping[str, Any] | None) -> Number:
    if line is None or line["value"] is None:
        return Number(None, reason=(line and line["reason"]) or "not timed")
    return Number(line["value"], line["low"], line["high"], line["n_rounds"], line["n_rounds"])
