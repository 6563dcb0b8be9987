"""The pages in a real browser: no errors, no requests, sorting, filtering, links, nothing wider than the screen."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import axe_core_python
import numpy as np
import pytest
from toyboard import HOSTILE, MakeDatabase, make_suite
from webdriver import Browser, browser, why_missing

from bench.store import write
from leaderboard.numbers import number
from leaderboard.show.render import render

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=str(why_missing()))
PAGES = ("index", "ranking", "compare", "protocols", "completions", "overhead", "paper", "runs", "methodology", "point")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def site(toy_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy under a path with a space and a percent sign: the site works anywhere."""
    return Path(shutil.copytree(toy_site, tmp_path_factory.mktemp("moved") / "a b %41"))


def path_of(site: Path, page: str) -> Path:
    return next((site / "points").glob("dexperts-*.html")) if page == "point" else site / f"{page}.html"


def ready(chromium: Browser, page: str) -> None:
    chromium.wait("document.readyState === 'complete'")
    if page == "index":
        chromium.wait("document.querySelectorAll('.js-plotly-plot').length >= 6")
    if page == "completions":
        chromium.wait("document.querySelectorAll('.text').length > 0")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1440, True)], ids=["phone", "wide and dark"])
def test_page_is_quiet_and_fits(chromium: Browser, site: Path, page: str, width: int, dark: bool) -> None:
    chromium.console()
    chromium.requests()
    chromium.open(path_of(site, page), width=width, dark=dark)
    ready(chromium, page)
    assert chromium.console() == []
    outside = [url for url in chromium.requests() if not url.startswith(("file:", "data:", "about:", "blob:"))]
    assert outside == []
    wide = chromium.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1] == width


@pytest.mark.parametrize("page", PAGES)
def test_page_has_no_serious_barrier(chromium: Browser, site: Path, page: str) -> None:
    require_no_barrier(chromium, path_of(site, page), page)


def require_no_barrier(chromium: Browser, path: Path, page: str) -> None:
    """axe-core finds nothing serious or critical, in either theme."""
    axe = Path(axe_core_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    for width, dark in ((1280, False), (390, True)):
        chromium.open(path, width=width, dark=dark)
        ready(chromium, page)
        chromium.run(axe)
        found = chromium.run("return axe.run().then((r) => r.violations.map((v) => [v.impact, v.id, v.nodes[0].html]))")
        assert [one for one in found if one[0] in ("serious", "critical")] == [], "dark" if dark else "light"


def test_a_board_of_several_has_no_barrier_and_filters(
    chromium: Browser, make_database: MakeDatabase, tmp_path: Path
) -> None:
    """Submissions of several days with pictures over time; who has a method, or mixes in a space."""
    suite = make_suite()
    without = suite.model_copy(update={"methods": tuple(m for m in suite.methods if m.name != "dexperts")})
    paths = []
    with pytest.MonkeyPatch.context() as patch:
        for who, day, measured in (("ann", "01", suite), ("ben", "02", without)):
            patch.setattr(write, "now", lambda day=day: f"2026-03-{day}T12:00:00+00:00")
            paths.append(make_database(measured, name=f"{who}.toy.db"))
    render(paths, tmp_path)
    require_no_barrier(chromium, tmp_path / "submissions.html", "submissions")
    days = chromium.run("return [...document.querySelectorAll('details[open] svg text')].map((e) => e.textContent)")
    assert {"2026-03-01", "2026-03-02"} <= set(days)
    who = "[aria-label=Submissions] tbody th"
    assert shown(chromium, who) == ["ann", "ben"]
    for name, value in (("method", "dexperts"), ("space", "logits")):
        choose(chromium, f"[data-chooses={name}]", value)
        assert shown(chromium, who) == ["ann"]
        choose(chromium, f"[data-chooses={name}]", "")
        assert shown(chromium, who) == ["ann", "ben"]


def test_the_first_page_is_small_and_paints_before_the_plots(chromium: Browser, site: Path) -> None:
    """What the front page needs before its plots' script: under 400 KB; the picture is there without any script."""
    before = ("index.html", "assets/style.css", "assets/site.js", "assets/charts.js", "assets/board.js")
    assert sum((site / name).stat().st_size for name in before) < 400_000
    chromium.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(site / "index.html")
        assert chromium.run("return document.querySelector('.still svg').getBoundingClientRect().height") > 300
    finally:
        chromium.devtools("Emulation.setScriptExecutionDisabled", value=False)
    clock = (  # of the moment when the plots' script has run
        "Object.defineProperty(window, 'Plotly', { get: () => window.drawing?.[1],"
        " set(found) { window.drawing = [performance.now(), found]; } })"
    )
    added = chromium.devtools("Page.addScriptToEvaluateOnNewDocument", source=clock)["identifier"]
    try:
        chromium.open(site / "index.html")
        ready(chromium, "index")
        paint, plots = chromium.run(
            "return [performance.getEntriesByName('first-contentful-paint')[0].startTime, window.drawing[0]]"
        )
        assert paint < plots
    finally:
        chromium.devtools("Page.removeScriptToEvaluateOnNewDocument", identifier=added)
    order = chromium.run("return [...document.scripts].map((s) => s.src.split('/').pop()).filter(Boolean)")
    assert order == ["site.js", "plotly.min.js", "charts.js", "board.js"]


def test_what_to_use_at_a_strength(chromium: Browser, site: Path) -> None:
    chromium.open(site / "index.html")
    ready(chromium, "index")
    first = shown(chromium, "[data-strength] h3")
    assert len(first) == 1
    options = chromium.run("return [...document.querySelector('[data-chooses=strength]').options].map((o) => o.value)")
    choose(chromium, "[data-chooses=strength]", options[-1])
    assert shown(chromium, "[data-strength] h3") == [f"Sentiment {options[-1]} or more"] != first


def test_methods_of_one_space(chromium: Browser, site: Path) -> None:
    """Rows, legend and lines of the chosen space alone; the address keeps it, beside what others chose."""
    chromium.open((site / "index.html").as_uri() + "?strength=0.7")
    ready(chromium, "index")
    choose(chromium, "#space", "logits")
    assert shown(chromium, "[data-set=''] tbody th > a") == ["dexperts"] == shown(chromium, "#legend button")
    lines = "return document.querySelector('#frontier .canvas').data.length"
    assert chromium.run(lines) == 1
    assert chromium.run("return location.search") == "?strength=0.7&space=logits"
    chromium.call("POST", "/refresh", {})
    ready(chromium, "index")
    assert shown(chromium, "#legend button") == ["dexperts"]
    choose(chromium, "#space", "")
    assert len(shown(chromium, "#legend button")) == chromium.run(lines) > 4


def test_a_figure_is_saved_as_svg(chromium: Browser, site: Path, tmp_path: Path) -> None:
    chromium.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    chromium.open(site / "index.html")
    ready(chromium, "index")
    chromium.run("document.querySelector('#frontier .save').click()")
    path, until = tmp_path / "lerpbench-frontier.svg", time.monotonic() + 20
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.1)
    text = path.read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "Perplexity, logarithmic" in text and "var(--" not in text


def test_columns_sort(chromium: Browser, site: Path) -> None:
    chromium.open(site / "index.html")
    ready(chromium, "index")
    order = """
      const rows = [...document.querySelectorAll('[data-set=""] tbody tr')];
      return rows.map((row) => row.cells[3].dataset.sort);
    """
    click = "document.querySelector('[data-set=\"\"] thead th:nth-child(4) button').click()"
    chromium.run(click)
    falling = [float(x) for x in chromium.run(order)]
    chromium.run(click)
    rising = [float(x) for x in chromium.run(order)]
    assert falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)
    assert chromium.run("return document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "ascending"


def test_prompt_set_and_scale_are_permalinks(chromium: Browser, site: Path) -> None:
    chromium.open((site / "index.html").as_uri() + "?prompts=positive&scale=d#g2")
    ready(chromium, "index")
    assert chromium.run("return document.getElementById('prompts').value") == "positive"
    assert chromium.run("return document.querySelector('[data-set=positive]').hidden") is False
    assert chromium.run("return document.querySelector('[data-set=\"\"]').hidden") is True
    chromium.run(
        "const s = document.getElementById('prompts'); s.value = 'neutral'; s.dispatchEvent(new Event('change'))"
    )
    assert "prompts=neutral" in chromium.run("return location.search")


def test_any_methods_strength_may_be_its_divergence_from_the_base(chromium: Browser, site: Path) -> None:
    """A mark stands at the root of its KL, in the curves where that axis is chosen and in a figure of its own."""
    chromium.open((site / "index.html").as_uri() + "?scale=kl")
    ready(chromium, "index")
    assert chromium.run("return document.getElementById('scale').value") == "kl"
    kl = chromium.run("return JSON.parse(document.getElementById('data').textContent).values.kl_to_base[''].v")
    for figure in ("curves-sentiment", "frontier-kl"):
        trace = chromium.run(
            f"const t = document.querySelector('#{figure} .canvas').data.at(-1); return [t.x.slice(), t.customdata]"
        )
        assert trace[0] == pytest.approx([kl[i] ** 0.5 for i in trace[1]])
    ticks = chromium.run("return document.querySelector('#frontier-kl .canvas').layout.xaxis.ticktext")
    assert ticks[0] == "0" and "0.1" in ticks


def test_plots_show_the_chosen_prompts(chromium: Browser, site: Path) -> None:
    chromium.open(site / "index.html")
    ready(chromium, "index")
    first = "return document.querySelector('#curves-sentiment .canvas').data.at(-1).y.slice()"
    everything = chromium.run(first)
    chromium.run(
        "const s = document.getElementById('prompts'); s.value = 'neutral'; s.dispatchEvent(new Event('change'))"
    )
    assert chromium.run(first) != everything
    chromium.run("document.querySelectorAll('#legend button')[0].click()")
    assert "hide=g1" in chromium.run("return location.search")


def choose(chromium: Browser, selector: str, value: str) -> None:
    change = f"s.value = {value!r}; s.dispatchEvent(new Event('change'))"
    chromium.run(f"const s = document.querySelector({selector!r}); {change}")


def shown(chromium: Browser, selector: str) -> list[str]:
    """The texts of what a reader can see of these elements."""
    seen = f"[...document.querySelectorAll({selector!r})].filter((e) => e.offsetParent)"
    found: list[str] = chromium.run(f"return {seen}.map((e) => e.textContent.trim())")
    return found


def test_the_sentence_on_top_follows_the_prompts(chromium: Browser, site: Path) -> None:
    chromium.open((site / "index.html").as_uri() + "?prompts=neutral")
    ready(chromium, "index")
    (verdict,) = shown(chromium, ".verdict")
    assert verdict.startswith("On neutral prompts")
    choose(chromium, "#prompts", "")
    (verdict,) = shown(chromium, ".verdict")
    assert verdict.startswith("Within 1.5 times")


def test_a_link_to_a_method_marks_its_row(chromium: Browser, site: Path) -> None:
    chromium.open((site / "index.html").as_uri() + "?prompts=neutral#g2-neutral")
    ready(chromium, "index")
    assert shown(chromium, "tr:target th a") == ["g2"]


def test_ranking_of_each_prompt_set(chromium: Browser, site: Path) -> None:
    chromium.open((site / "ranking.html").as_uri() + "?prompts=neutral")
    ready(chromium, "ranking")
    assert shown(chromium, "h2")[0] == "Steering up, neutral prompts"
    assert len(shown(chromium, "h2")) == 5
    assert set(shown(chromium, "td .n")) >= {"n 3"}  # the half of 6 neutral prompts
    choose(chromium, "[data-chooses=prompts]", "all")
    assert shown(chromium, "h2")[0] == "Steering up"
    assert "prompts=all" in chromium.run("return location.search")


def test_compare_any_two_methods(chromium: Browser, site: Path) -> None:
    chromium.open(site / "compare.html")
    ready(chromium, "compare")
    assert len(shown(chromium, "article h3")) == 1
    choose(chromium, "[data-chooses=a]", "g1")
    choose(chromium, "[data-chooses=b]", "g2")
    (heading,) = shown(chromium, "article h3")
    assert "g1(" in heading and "g2(" in heading
    choose(chromium, "[data-chooses=b]", "")
    everyone = shown(chromium, "article h3")
    assert len(everyone) == 6 and all("g1(" in heading for heading in everyone)  # the six others at their reach
    choose(chromium, "[data-chooses=level]", "step-1")
    assert shown(chromium, "article") == []
    assert len(shown(chromium, "[data-none]")) == 1
    chromium.open(chromium.run("return location.href").replace("a=g1&b=", "a=dexperts&b=g2"))
    ready(chromium, "compare")
    (heading,) = shown(chromium, "article h3")
    assert heading.startswith("g2(alpha=1) minus dexperts(alpha=1)")
    assert shown(chromium, "[data-none]") == []


def test_protocols_at_the_level_of_the_link(chromium: Browser, site: Path) -> None:
    chromium.open(site / "protocols.html")
    ready(chromium, "protocols")
    assert shown(chromium, "h3.level") == ["Reach"]
    chromium.run("[...document.querySelectorAll('.matrix a')].find((a) => a.textContent === 'Step 1').click()")
    chromium.wait("location.search.includes('step-1')")
    ready(chromium, "protocols")
    assert shown(chromium, "h3.level") == ["Step 1"]
    (flip,) = shown(chromium, "[data-level='step-1'] details tbody tr")
    assert flip.startswith("g2") and flip.endswith("the flip")


def test_without_scripts_everything_chosen_away_is_there(chromium: Browser, site: Path) -> None:
    chromium.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        for page in ("compare", "protocols", "ranking"):
            chromium.open(site / f"{page}.html")
            hidden = chromium.run(
                "return [...document.querySelectorAll('[data-choice]')].filter((e) => !e.offsetParent)"
            )
            assert hidden == []
    finally:
        chromium.devtools("Emulation.setScriptExecutionDisabled", value=False)


def test_the_papers_figures_follow_the_chosen_prompts(chromium: Browser, site: Path) -> None:
    chromium.open((site / "paper.html").as_uri() + "?prompts=neutral#figure-3")
    chromium.wait("document.querySelectorAll('#figure-8 .js-plotly-plot').length === 2")
    first = "return document.querySelector('#figure-3 .canvas').data.at(-1).y.slice()"
    neutral = chromium.run(first)
    chromium.run(
        "const s = document.getElementById('prompts'); s.value = ''; s.dispatchEvent(new Event('change'));"
        "document.querySelector('#figure-3 details').open = true"
    )
    assert chromium.run(first) != neutral
    assert chromium.run("return location.search") == ""
    assert chromium.wait("document.querySelectorAll('#figure-3 tbody tr').length") == 7
    row = chromium.run("return [...document.querySelector('#figure-3 tbody tr').cells].map((c) => c.textContent)")
    over = chromium.run("return document.querySelector('#figure-3 .canvas').data.at(-1).text[0]")
    assert over == f"<b>{row[0]}</b><br>{row[1]} {row[2]} ({row[3]}; n {row[4]})" and row[0] == "g1(alpha=-1)"
    point = "{ points: [{ customdata: 3 }] }"
    chromium.run(f"document.querySelector('#figure-3 .canvas').emit('plotly_click', {point})")
    chromium.wait("location.pathname.endsWith('completions.html')")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_both_pages_draw_a_curve_alike(chromium: Browser, site: Path, dark: bool) -> None:
    """The board's script makes g1's curve from columns, the paper's page shows the one that Python made."""
    kept = "({ x, y, mode, line, marker, text, fillcolor }) => ({ x, y, mode, line, marker, text, fillcolor })"

    def drawn(figure: str) -> Any:
        return chromium.run(f"return document.querySelector('{figure} .canvas').data.slice(-2).map({kept})")

    chromium.open((site / "index.html").as_uri() + "?hide=g2,dexperts,g3,base,expert,antiexpert", dark=dark)
    ready(chromium, "index")
    board = drawn("#curves-sentiment")
    chromium.open(site / "paper.html", dark=dark)
    chromium.wait("document.querySelectorAll('#figure-3 .js-plotly-plot').length === 3")
    assert board == drawn("#figure-3")
    assert board[1]["line"]["color"] == chromium.run(
        "return getComputedStyle(document.documentElement).getPropertyValue('--s0').trim()"
    )


def test_a_number_is_written_alike_in_both_languages(chromium: Browser, site: Path) -> None:
    """Over 24 orders of magnitude, at the rule's edges, and at ties, where both go to the even digit."""
    rng = np.random.default_rng(0)
    scattered = [float(f"{x:.5g}") for x in rng.normal(size=2000) * 10.0 ** rng.integers(-12, 12, 2000)]
    edges = [
        edge + step for edge in (0, 1e-5, 1e-4, 0.01, 0.1, 2, 10, 1000, 1e6) for step in (-1e-9, 0, 1e-9, 0.0004996)
    ]
    ties = [n / 16 for n in range(-400, 400)] + [n / 2 for n in range(1990, 2100)] + [0.0625, 1.9375, 999.95, 999.5]
    values = [*scattered, *edges, *ties, -0.0]
    chromium.open(site / "index.html")
    ready(chromium, "index")
    written = chromium.run(f"return {json.dumps(values)}.map(window.lerpbench.charts.number)")
    assert [(v, text) for v, text in zip(values, written, strict=True) if text != number(v)] == []
    assert chromium.run("return window.lerpbench.charts.number(null)") == number(None)


def test_table_behind_a_plot(chromium: Browser, site: Path) -> None:
    chromium.open(site / "index.html")
    ready(chromium, "index")
    chromium.run("document.querySelector('#frontier details').open = true")
    assert chromium.wait("document.querySelectorAll('#frontier tbody tr').length") == 45


def test_hostile_completions_stay_text_in_a_browser(chromium: Browser, site: Path) -> None:
    chromium.open((site / "completions.html").as_uri() + "#set=neutral&row=0&c=base&c=g1(alpha%3D1)")
    ready(chromium, "completions")
    texts = chromium.run("return [...document.querySelectorAll('.text q')].map((q) => q.textContent)")
    assert any(HOSTILE in text for text in texts)
    assert chromium.run("return window.hacked === undefined && !document.querySelector('.columns img')")


def test_completions_filter(chromium: Browser, site: Path) -> None:
    chromium.open(site / "completions.html")
    ready(chromium, "completions")
    chromium.run("const f = document.getElementById('filter'); f.value = '(3, 2)'; f.dispatchEvent(new Event('input'))")
    chromium.wait("document.querySelectorAll('.text').length === document.querySelectorAll('.column').length")
    texts = chromium.run("return [...document.querySelectorAll('.text q')].map((q) => q.textContent)")
    assert texts and all("(3, 2)" in text for text in texts)
    chromium.run(
        "for (const [id, v] of [['filter', ''], ['from', '0.9']]) { const f = document.getElementById(id); f.value = v;"
        " f.dispatchEvent(new Event('input')); }"
    )
    chromium.wait("document.querySelectorAll('.text').length > 3")
    scores = chromium.run(
        "return [...document.querySelectorAll('.text small')].map((s) => s.textContent.match(/[0-9.]+/)[0])"
    )
    assert scores and all(float(score) >= 0.9 for score in scores)


def test_completions_of_every_setting_of_a_method(chromium: Browser, site: Path) -> None:
    """A link to a method: 5 alphas x 3 samples of one prompt, or what passes the filters on a set's 3 prompts."""
    chromium.open((site / "completions.html").as_uri() + "#set=positive&row=1&c=g2")
    ready(chromium, "completions")
    assert len(shown(chromium, ".text")) == 15
    assert all("positive prompt 1" in text for text in shown(chromium, ".text"))
    assert "g2: 15 of 15" in shown(chromium, ".mean")[0]
    chromium.open((site / "completions.html").as_uri() + "#set=positive&c=g2&from=0.5")
    ready(chromium, "completions")
    texts = shown(chromium, ".text")
    assert "of 45" in shown(chromium, ".mean")[0] and 0 < len(texts) < 45
    assert all("positive prompt" in text for text in texts)
    setting = "[aria-label='Setting of column 1']"
    option = f"[...document.querySelector({setting!r}).options].find((o) => o.text === 'alpha=1')"
    choose(chromium, setting, chromium.run(f"return {option}.value"))
    chromium.wait("document.querySelector('.mean').textContent.includes('of 9')")
    assert all("g2(alpha=1)" in text for text in shown(chromium, ".text"))


def test_a_link_to_a_point_and_to_a_completion(chromium: Browser, site: Path) -> None:
    chromium.open((site / "completions.html").as_uri() + "#c=g2(alpha%3D1)")
    ready(chromium, "completions")
    assert chromium.run("return [...document.querySelectorAll('.column')].map((c) => c.ariaLabel)") == ["g2(alpha=1)"]
    assert "On all prompts: sentiment 0." in shown(chromium, ".mean")[0]
    chromium.run("[...document.querySelectorAll('.text a')].find((a) => a.textContent.endsWith('sample 2')).click()")
    chromium.wait("document.querySelector('.marked')")
    address, marked = chromium.run("return [location.href, document.querySelector('.marked').textContent]")
    chromium.open(address + "&c=base")
    ready(chromium, "completions")
    chromium.wait("document.querySelectorAll('.column:nth-child(2) .text').length === 3")
    assert chromium.run("return [...document.querySelectorAll('.marked')].map((m) => m.textContent)") == [marked]
    assert "(0, 2)" in marked and "g2(alpha=1)" in marked


def test_link_from_table_to_completions(chromium: Browser, site: Path) -> None:
    chromium.open(site / "index.html")
    ready(chromium, "index")
    setting = chromium.run("const a = document.querySelector('td.at a'); a.click(); return a.textContent")
    chromium.wait("location.pathname.endsWith('completions.html')")
    ready(chromium, "completions")
    labels = chromium.run("return [...document.querySelectorAll('.column')].map((c) => c.ariaLabel)")
    assert any(setting in label for label in labels)


def test_a_point_is_shared(chromium: Browser, site: Path) -> None:
    """From the table to the point's page: its card is drawn, its entry is copied, and it leads to its completions."""
    chromium.open(site / "index.html")
    ready(chromium, "index")
    setting = chromium.run("const a = document.querySelector('td.at a.to'); a.click(); return a.parentNode.textContent")
    chromium.wait("location.pathname.includes('/points/') && document.readyState === 'complete'")
    assert setting.split(" share")[0].strip() in chromium.run("return document.querySelector('h1').textContent")
    chromium.run("document.querySelector('img.social').scrollIntoView()")
    chromium.wait("document.querySelector('img.social').naturalWidth === 1200")
    chromium.run("navigator.clipboard.writeText = async (text) => { window.copied = text; };"
                 "document.querySelector('[data-copies=bibtex]').click()")  # fmt: skip
    chromium.wait("document.querySelector('[data-copies=bibtex]').textContent === 'Copied'")
    assert chromium.run("return window.copied").startswith("@misc{lerpbench-toy-transformers-")
    chromium.run("document.querySelector('a[href*=completions][href*=\"#c\"]').click()")
    chromium.wait("location.pathname.endsWith('completions.html')")
    ready(chromium, "completions")
    assert len(chromium.run("return [...document.querySelectorAll('.column')]")) == 1


def test_many_boards_are_filtered(chromium: Browser, make_database: MakeDatabase, tmp_path: Path) -> None:
    suites = [make_suite(name) for name in ("one", "two", "three")]
    other = make_suite("four")
    other = other.model_copy(update={"methods": other.methods[:1]})
    paths = [make_database(*suites), make_database(other, name="ann.db"), make_database(other, name="ben.db")]
    render(paths, tmp_path)
    chromium.open(tmp_path / "index.html")
    chromium.wait("document.readyState === 'complete'")
    assert len(shown(chromium, ".card h2")) == 4
    choose(chromium, "[data-chooses=method]", "g2")
    assert shown(chromium, ".card h2") == ["The one suite", "The three suite", "The two suite"]
    assert "method=g2" in chromium.run("return location.search")
    choose(chromium, "[data-chooses=method]", "")
    for name, value in (("space", "weights"), ("attribute", "sentiment"), ("model", "mini:expert")):
        choose(chromium, f"[data-chooses={name}]", value)
        assert len(shown(chromium, ".card h2")) == 4
    choose(chromium, "[data-chooses=space]", "logits")
    assert shown(chromium, ".card h2") == ["The one suite", "The three suite", "The two suite"]
    chromium.open(tmp_path / "four-transformers" / "submissions.html")
    chromium.wait("document.readyState === 'complete'")
    assert shown(chromium, "[aria-label=Submissions] tbody th") == ["ann", "ben"]
    choose(chromium, "[data-chooses=who]", "ben")
    assert shown(chromium, "[aria-label=Submissions] tbody th") == ["ben"]


def test_several_boards_link_up(chromium: Browser, make_database: MakeDatabase, tmp_path: Path) -> None:
    render([make_database(make_suite("one"), make_suite("two"))], tmp_path)
    chromium.console()
    chromium.open(tmp_path / "index.html", width=360)
    chromium.run("document.querySelector('.card a').click()")
    chromium.wait("location.pathname.endsWith('one-transformers/index.html')")
    ready(chromium, "index")
    assert chromium.console() == []


@pytest.mark.parametrize("page", ["index.html", "paper.html"])
def test_an_address_that_is_none_raises_no_error(chromium: Browser, site: Path, page: str) -> None:
    chromium.open((site / page).as_uri() + "#%E0%A4%A")
    chromium.wait("document.querySelectorAll('.js-plotly-plot').length > 0")
    assert chromium.run("return window.lerpbench.charts.named(location.hash)") is None
    assert chromium.run("return window.lerpbench.charts.named('#main') === document.getElementById('main')")
