"""The paper's figures: who plays which part, the numbers by hand, the panels that draw them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.schema import Number, Recipe, Space, TensorDistance
from leaderboard.charts.layout import compose
from leaderboard.measure.rank import chord_rise, find_series, steering
from leaderboard.numbers import short
from leaderboard.paper import paper_figures
from leaderboard.paper.cast import cast
from leaderboard.paper.figure import Figure
from leaderboard.paper.linearity import explained
from leaderboard.paper.plane import on_the_line
from leaderboard.paper.static import palette, printed
from leaderboard.paper.sweeps import contrast, distance
from leaderboard.paper.weight_distance import distances, layer_and_parameter
from leaderboard.read.board import ALL, Board, MetricInfo, PerPrompt, Place, Protocol
from leaderboard.show.figures import page_data

Point = tuple[str, dict[str, float], dict[str, float], Space]  # method, parameters, coefficients, space


def make_board(points: Sequence[Point], metrics: Mapping[str, Sequence[float]]) -> Board:
    """A board whose metrics are equal on all of its four prompts, so that intervals shrink to the values."""
    places = tuple(
        Place(k, method, params, json.dumps(params), Recipe(space=space, coefficients=coefficients), None)
        for k, (method, params, coefficients, space) in enumerate(points)
    )
    sums = {
        name: PerPrompt(np.array(["neutral"] * 4), np.repeat(np.array(v, float)[:, None], 4, axis=1),
                        np.ones((len(v), 4)), "identity")
        for name, v in metrics.items()
    }  # fmt: skip
    results = {(k, name, ALL): Number(x, x, x, 4, 4) for name, v in metrics.items() for k, x in enumerate(v)}
    return Board(
        suite="hand", engine="transformers", databases=("hand.db",), definition={}, places=places, results=results,
        protocol=Protocol("", "", {}, {}, {}), metrics={name: MetricInfo(name) for name in metrics}, rows=(), runs=(),
        overhead=(), overhead_elsewhere={}, mixtures={}, per_prompt=sums,
    )  # fmt: skip


def bridge_board() -> Board:
    points: list[Point] = [
        ("any", {"other": a}, {k: c for k, c in (("base", 1 - a), ("other", a)) if c}, "weights") for a in (0, 0.5, 1)
    ]
    metrics = {"perplexity": [10.0, 100.0, 20.0], "distinct_2": [0.8, 0.9, 0.8], "acceptability": [0.6, 0.1, 0.5]}
    return make_board(points, metrics)


def plane_board(values: Mapping[tuple[float, float], float]) -> Board:
    points: list[Point] = [
        ("g3", {"alpha": a, "beta": b}, {"base": 1 - a - b, "expert": a, "antiexpert": b}, "weights") for a, b in values
    ]
    return make_board(points, {"perplexity": list(values.values())})


@pytest.fixture(scope="module")
def probed(board: Board) -> Board:
    """The toy board with what the linearity probe and the weight distances would add."""
    found = dict(board.results)
    for i, place in enumerate(board.places):
        if place.method in ("g2", "g3"):
            size = sum(abs(float(v)) for v in place.params.values())
            found[i, "kl_weights_logits", ALL] = Number(0.1 * size, None, None, 8, 8)
            found[i, "nucleus_overlap", ALL] = Number(1 - 0.1 * size, None, None, 8, 8)
    rows = tuple(
        TensorDistance(pair=pair, tensor=tensor, elements=8, distance=scale * value)
        for pair, scale in (("expert:base", 0.01), ("other:base", 0.1))
        for tensor, value in (("wte.weight", 2.0), ("h.0.ln.bias", 1.0), ("h.1.ln.bias", 0.5))
    )
    for pair in ("expert:base", "other:base"):
        found[0, f"weight_distance[{pair}]", ALL] = Number(0.1, None, None, 24, 24)
    metrics = dict(board.metrics) | {name: MetricInfo(name) for _, name, _ in found if name not in board.metrics}
    return replace(board, results=found, metrics=metrics, distances=rows)


def drawn(board: Board) -> dict[str, Figure]:
    return {figure.claim.key: figure for figure in paper_figures(board, find_series(board))}


# ------------------------------------------------------------------------------------------------ numbers


def test_parts_are_known_by_their_recipes(board: Board) -> None:
    renamed = replace(board, places=tuple(replace(p, method=f"plugin_{p.method}") for p in board.places))
    parts = cast(renamed, find_series(renamed))
    names = [s and s.method for s in (parts.line, parts.push, parts.ensemble, parts.plane, parts.bridge)]
    assert names == ["plugin_g1", "plugin_g2", "plugin_dexperts", "plugin_g3", None]


def test_a_bridge_stays_out_of_the_ranking_and_of_the_board(board: Board) -> None:
    series = find_series(bridge_board())
    assert [s.kind for s in series] == ["bridge"]
    assert steering(series) == []
    assert page_data(bridge_board(), [])["series"] == []


def test_barrier_of_a_bridge_by_hand() -> None:
    """Half way between 10 and 20 the chord is at 15: 100 - 15 = 85."""
    found = bridge_board()
    (bridge,) = find_series(found)
    rise = chord_rise(found, bridge, (0, 2), "perplexity")
    assert (rise.value, rise.low, rise.high, rise.n_total) == (85, 85, 85, 1)
    texts = [(f.text, f.holds) for f in drawn(found)["10"].findings]
    assert ("1 of 1 settings between them have a higher perplexity or fewer distinct bigrams than both.", True) in texts
    assert ("Acceptability between them: 0.100 to 0.100; at the ends 0.600 and 0.500.", True) in texts


def test_plateau_by_hand() -> None:
    """At displacement 1 the line has 2, beside it 8 and 2: 2 / sqrt(8 * 2) = 1/2; (1.5, -0.5) lies on the other line.

    At displacement 0 the line has 4, beside it 4 and 4: 1.  Both together: sqrt(1/2 * 1).
    """
    values = {(1, -1): 2.0, (1.5, -0.5): 50.0, (0.5, -1.5): 8.0, (2, 0): 2.0, (0, 0): 4.0, (1, 1): 4.0, (-1, -1): 4.0}
    found = plane_board(values)
    (plane,) = find_series(found)
    ratio = on_the_line(found, plane, "perplexity", 0)
    assert ratio is not None and ratio.n_total == 2
    assert ratio.value == pytest.approx(np.sqrt(0.5))
    assert on_the_line(found, plane, "nothing", 0) is None


def test_explained_variance_by_hand() -> None:
    """y = 0 1 1 on x = 0 1 2: fit 1/6 2/3 7/6, residuals 1/6, mean 2/3, 1 - (1/6) / (2/3) = 0.75; y = 2x has 1."""
    x = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    found = explained(np.array([[0.0, 1.0, 1.0], [0.0, 2.0, 4.0], [0.0, 1.0, 0.0], [3.0, 3.0, 3.0]]), x)
    assert found[:3] == pytest.approx([0.75, 1, 0])
    assert np.isnan(found[3])


def test_largest_distance_and_contrast_by_hand() -> None:
    """|1 - 1.5| = 0.5, |2 - 4| = 2: the second pair.  The mean difference, second minus first: (0.5 + 2) / 2."""
    points: list[Point] = [("a", {"alpha": k}, {"base": 1}, "weights") for k in range(4)]
    found = make_board(points, {"sentiment": [1.0, 1.5, 2.0, 4.0]})
    far, at = distance(found, "sentiment", [(0, 1), (2, 3)])
    assert (far.value, far.low, far.high, far.n_total, at) == (2, 2, 2, 2, 2)
    assert contrast(found, "sentiment", {0: -0.5, 1: 0.5, 2: -0.5, 3: 0.5}).value == 1.25


def test_tensors_have_a_layer_and_a_parameter() -> None:
    assert layer_and_parameter("transformer.h.13.attn.c_attn.weight") == (13, "attn.c_attn.weight")
    assert layer_and_parameter("transformer.wte.weight") == (None, "wte.weight")


def test_weight_distances(probed: Board) -> None:
    """Over all of three equally large tensors: sqrt((2^2 + 1^2 + 0.5^2) / 3) = sqrt(1.75) hundredths."""
    stored = distances(probed)
    assert stored["expert:base"] == {
        "": pytest.approx(0.01 * 1.75**0.5),
        "wte.weight": 0.02,
        "h.0.ln.bias": 0.01,
        "h.1.ln.bias": 0.005,
    }
    texts = [(f.text, f.holds) for f in drawn(probed)["9"].findings]
    assert texts[1] == ("other and base are 10.0 times as far apart as expert and base, which are closer in 3 of 3 "
                        "tensors.", True)  # fmt: skip


def test_linearity_near_the_base(probed: Board) -> None:
    """|alpha| + |beta| over {-1, -0.5, 0, 0.5, 1} squared: the median is 1, the largest 2."""
    texts = [f.text for f in drawn(probed)["linearity"].findings]
    assert re.match(r"A linear function .* explains 0\.9\d+ \(0\.9", texts[0])
    assert "median 0.100, at worst 0.200 at g3(alpha=-1, beta=-1)" in texts[1]
    assert "median 0.900, at worst 0.800" in texts[2]


def test_what_is_not_stored_is_said(board: Board) -> None:
    figures = drawn(board)
    for key in ("9", "10"):
        assert figures[key].findings[0].text.startswith("Not shown by this database")
        assert not figures[key].drawn()
    bare = replace(board, places=(), results={}, per_prompt={})
    assert all(not figure.drawn() for figure in drawn(bare).values())


# ------------------------------------------------------------------------------------------------ panels


def traces(figure: Figure, prompts: str = ALL) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((k, trace) for k, panel in enumerate(figure.drawn(prompts)) for trace in panel.traces)


@pytest.mark.parametrize("prompts", ["", "neutral"])
def test_a_line_shows_the_boards_numbers(board: Board, prompts: str) -> None:
    line = next(s for s in find_series(board) if s.name == "g1")
    (shown,) = [t for k, t in traces(drawn(board)["3"], prompts) if k == 0 and "markers" in t["mode"]]
    assert shown["x"] == [-1, 0, 0.25, 0.5, 0.75, 1, 2]
    assert shown["y"] == [short(board.value(i, "sentiment", prompts)) for i in line.places]


def test_a_map_shows_the_boards_numbers(board: Board) -> None:
    """Rows are beta, columns alpha, from the lowest; perplexity as its logarithm."""
    at = {place.label: i for i, place in enumerate(board.places)}
    heat = [t for _, t in traces(drawn(board)["7"]) if t["type"] == "heatmap"]
    i = at["g3(alpha=1, beta=-0.5)"]
    assert heat[0]["z"][1][4] == short(board.value(i, "sentiment"))
    assert heat[1]["z"][1][4] == pytest.approx(np.log10(board.value(i, "perplexity") or 0), rel=1e-4)


def test_both_scales_of_figure_5_meet_at_one_half(board: Board) -> None:
    for panel in drawn(board)["5"].drawn():
        assert panel.top is not None
        assert np.subtract(panel.x["range"], panel.top["range"]) == pytest.approx([0.5, 0.5])


def test_weight_distances_share_one_scale(probed: Board) -> None:
    heat = [t for _, t in traces(drawn(probed)["9"])]
    assert np.array([[t["zmin"], t["zmax"]] for t in heat]) == pytest.approx(np.log10([[0.005, 0.2]] * 2))
    assert heat[0]["y"] == ["0", "1", "outside"] and heat[0]["x"] == ["ln.bias", "wte.weight"]


def test_probes_of_linearity_are_drawn_where_stored(board: Board, probed: Board) -> None:
    kinds = [panel.traces[0]["type"] for panel in drawn(probed)["linearity"].drawn()]
    assert kinds == ["heatmap", "heatmap", "scatter", "scatter"]
    assert not drawn(board)["linearity"].drawn()


def test_the_boards_page_leaves_distances_of_checkpoints_out(probed: Board) -> None:
    names = page_data(probed, find_series(probed))["metrics"]
    assert "sentiment" in names and not any(name.startswith("weight_distance") for name in names)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_panels_do_not_overlap(board: Board, n: int) -> None:
    panel = drawn(board)["5"].drawn()[0]
    layout = compose([panel] * n, 650, 150, 10)["layout"]
    names = ["", *map(str, range(2, n + 1))]
    boxes = [(*layout[f"xaxis{k}"]["domain"], *layout[f"yaxis{k}"]["domain"]) for k in names]
    for i, (left, right, low, high) in enumerate(boxes):
        assert 0 <= left < right <= 1 and 0 <= low < high <= 1
        for other in boxes[:i]:
            assert right <= other[0] or left >= other[1] or high <= other[2] or low >= other[3]


def test_a_name_stands_once_in_the_legend(board: Board) -> None:
    data = compose(drawn(board)["5"].drawn(), 650, 150, 10)["data"]
    assert [t["name"] for t in data if t.get("showlegend")] == ["g1", "g2"]


def test_files_have_colours_in_place_of_names(probed: Board) -> None:
    """`--s0:0.16` becomes eight hexadecimal digits: 0.16 * 255 = 41 = 0x29."""
    files = {name: figure for f in drawn(probed).values() for name, figure in printed(f)}
    assert {"figure-3", "figure-3a", "figure-3c", "figure-9", "figure-linearityd"} <= set(files)
    assert not any('"--' in json.dumps(figure) for figure in files.values())
    assert files["figure-3a"]["data"][0]["fillcolor"] == palette()["--s0"] + "29"
