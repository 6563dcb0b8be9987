"""The pages in a real browser: no errors, no requests, sorting, filtering, links, nothing wider than the screen."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from toyboard import HOSTILE, MakeDatabase, make_suite
from webdriver import Browser, browser, why_missing

from leaderboard import render

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=str(why_missing()))
PAGES = ("index", "ranking", "completions", "paper", "runs", "methodology")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def site(toy_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy under a path with a space and a percent sign: the site works anywhere."""
    return Path(shutil.copytree(toy_site, tmp_path_factory.mktemp("moved") / "a b %41"))


def ready(chromium: Browser, page: str) -> None:
    chromium.wait("document.readyState === 'complete'")
    if page == "index":
        chromium.wait("document.querySelectorAll('.js-plotly-plot').length >= 10")
    if page == "completions":
        chromium.wait("document.querySelectorAll('.text').length > 0")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(360, False), (1440, True)], ids=["phone", "wide and dark"])
def test_page_is_quiet_and_fits(chromium: Browser, site: Path, page: str, width: int, dark: bool) -> None:
    chromium.console()
    chromium.requests()
    chromium.open(site / f"{page}.html", width=width, dark=dark)
    ready(chromium, page)
    assert chromium.console() == []
    outside = [url for url in chromium.requests() if not url.startswith(("file:", "data:", "about:", "blob:"))]
    assert outside == []
    wide = chromium.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1] == width


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


def test_link_from_table_to_completions(chromium: Browser, site: Path) -> None:
    chromium.open(site / "index.html")
    ready(chromium, "index")
    setting = chromium.run("const a = document.querySelector('td.at a'); a.click(); return a.textContent")
    chromium.wait("location.pathname.endsWith('completions.html')")
    ready(chromium, "completions")
    labels = chromium.run("return [...document.querySelectorAll('.column')].map((c) => c.ariaLabel)")
    assert any(setting in label for label in labels)


def test_several_boards_link_up(chromium: Browser, make_database: MakeDatabase, tmp_path: Path) -> None:
    render([make_database(make_suite("one"), make_suite("two"))], tmp_path)
    chromium.console()
    chromium.open(tmp_path / "index.html", width=360)
    chromium.run("document.querySelector('.card a').click()")
    chromium.wait("location.pathname.endsWith('one-transformers/index.html')")
    ready(chromium, "index")
    assert chromium.console() == []
