"""What is shared: a page, a card and an entry for each point at an address that stays; the board's badge."""

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from toyboard import MakeDatabase, make_suite

from bench.schema import Recipe
from leaderboard.read.board import Board, Place
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores
from leaderboard.show import social
from leaderboard.show.cite import bibtex, tex
from leaderboard.show.render import render
from leaderboard.show.share import address


@pytest.fixture(scope="module")
def board(toy_database: Path) -> Board:
    with open_stores([toy_database]) as stores:
        (found,) = load_boards(stores, [toy_database])
    return found


def test_each_point_has_a_page_and_a_card(toy_site: Path, board: Board) -> None:
    pages = {address(place) for place in board.places}
    assert len(pages) == len(board.places)
    here = {path.relative_to(toy_site).as_posix() for path in (toy_site / "points").iterdir()}
    assert here == pages | {page.replace(".html", ".png") for page in pages}
    recipes = (toy_site / "runs.html").read_text()
    assert all(f'href="{page}"' in recipes for page in pages)


def test_a_page_says_what_its_card_says(toy_site: Path, board: Board) -> None:
    """In full where the address is known; and the numbers of this point."""
    i = next(i for i, place in enumerate(board.places) if place.label == "dexperts(alpha=1)")
    value = f"sentiment {board.value(i, 'sentiment'):.3f} ["
    page = (toy_site / address(board.places[i])).read_text()
    assert f'"og:description" content="{value}' in page and "logits: antiexpert -1, base 1, expert 1; 3 models" in page
    assert f'"og:image" content="../{address(board.places[i])[:-5]}.png"' in page and '"canonical"' not in page


def test_addresses_are_full_where_the_site_will_be_read(make_database: MakeDatabase, tmp_path: Path) -> None:
    """Also below a board's own folder, and the badge with it; without cards none are named, and old ones go."""
    paths = [make_database(make_suite("one"), make_suite("two"))]
    render(paths, tmp_path, "https://ann.example/board/")
    (page,) = (tmp_path / "one-transformers" / "points").glob("base-*.html")
    text, home = page.read_text(), "https://ann.example/board/one-transformers/"
    assert f'"og:image" content="{home}points/{page.stem}.png"' in text
    assert f'<link rel="canonical" href="{home}points/{page.name}">' in text
    assert rf"howpublished = {{\url{{{home}points/{page.name}}}}}" in text
    front = (tmp_path / "one-transformers" / "index.html").read_text()
    assert f"[![lerpbench one]({home}badge.svg)]({home})" in front and f'"og:image" content="{home}points/' in front
    render(paths, tmp_path, cards=False)
    assert not list(tmp_path.rglob("*.png")) and "og:image" not in page.read_text()


def test_an_address_is_plain_and_the_points_own() -> None:
    """Two labels that look alike as file names stay apart; parameters of any text make plain names."""
    recipe = Recipe(space="weights", coefficients={"base": 1})
    one, other = (Place(1, "m", {"a": text}, f'{{"a":"{text}"}}', recipe, None) for text in ("x y", "x/y"))
    assert address(one).startswith("points/m-a-x-y-") and address(one) != address(other)
    long = address(replace(one, params={"a": "\N{GREEK SMALL LETTER ALPHA}/../" * 99}))
    assert long.isascii() and long.count("/") == 1 and len(long) < 75
    assert address(replace(one, id=9, database="another.db")) == address(one)


def test_a_card_keeps_its_texts_within_its_edges() -> None:
    long, digits = "prompt(text=" + "Say something kind, " * 20 + ")", [social.Figure("a_long_name" * 9, "1,234.5", "")]
    image = Image.open(io.BytesIO(social.draw("suite " * 40, long, long, digits * 4, long, "#0f6ab0")))
    assert image.size == (1200, 630)
    pixels = image.convert("RGB")
    assert pixels.getpixel((3, 300)) == (0x0F, 0x6A, 0xB0)
    margin = pixels.crop((1200 - social.EDGE + 2, 0, 1200, 630))
    assert margin.getcolors() == [(margin.width * margin.height, (255, 255, 255))]
    assert len(pixels.crop((social.EDGE, 140, 1100, 250)).getcolors() or ()) > 10  # there is a title


def test_an_entry_cites_the_points_numbers(board: Board) -> None:
    i = next(i for i, place in enumerate(board.places) if place.label == "g2(alpha=1)")
    entry = bibtex(board, i, "https://ann.example/p_1.html")
    assert entry.startswith("@misc{lerpbench-toy-transformers-g2-alpha-1,\n")
    assert "title = {{lerpbench: The toy suite: g2(alpha=1)}}" in entry
    assert f"note = {{sentiment {board.value(i, 'sentiment'):.3f} (" in entry
    assert r"howpublished = {\url{https://ann.example/p_1.html}}" in entry
    assert r"distinct\_2 0." in entry and entry.count("{") == entry.count("}")
    assert tex("50 % of {a_b} \\ \N{MINUS SIGN}1 \N{SNOWMAN}") == r"50 \% of  a\_b    -1  "


def test_the_badge_is_one_line_of_the_best(toy_site: Path, board: Board) -> None:
    root = ElementTree.fromstring((toy_site / "badge.svg").read_text())
    left, right = (e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text"))
    assert left == "lerpbench toy" and right.startswith("sentiment 0.") and " by " in right
    assert root.attrib["aria-label"] == f"{left}: {right}"
