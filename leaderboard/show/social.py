"""A point -> a social card: what a shared link shows of it, as a picture of 1200 x 630 pixels.

Drawn by Pillow in its own typeface, which has ASCII alone; the page that the card belongs to has the texts as they are.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageColor, ImageDraw, ImageFont

from leaderboard.numbers import MINUS, NONE

SIZE = WIDTH, HEIGHT = 1200, 630
EDGE, STRIPE = 72, 18
COLUMNS = 4  # of numbers
PAPER, INK, SOFT, LINE = 255, 24, 97, 220  # greys; of the palette of 256 one is the stripe's colour
COLOURED = 1
PLAIN = str.maketrans({MINUS: "-", NONE: "-", "\N{HORIZONTAL ELLIPSIS}": "..."})


@dataclass(frozen=True)
class Figure:
    """A number with its interval under its name."""

    name: str
    value: str
    interval: str


def draw(head: str, title: str, about: str, figures: Sequence[Figure], foot: str, colour: str) -> bytes:
    """The card as a PNG: what is measured, the point, what it is made of, up to four numbers, how it was measured."""
    image = Image.new("L", SIZE, PAPER)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, STRIPE, HEIGHT), fill=COLOURED)
    pen.text((EDGE, 56), "lerpbench", font=_font(30), fill=INK)
    _write(pen, WIDTH - EDGE, 56, head, 30, SOFT, 760, anchor="ra")
    _write(pen, EDGE, 150, title, 76, INK, WIDTH - 2 * EDGE)
    _write(pen, EDGE, 252, about, 30, SOFT, WIDTH - 2 * EDGE)
    pen.line((EDGE, 326, WIDTH - EDGE, 326), fill=LINE, width=2)
    wide = (WIDTH - 2 * EDGE) // COLUMNS
    for k, figure in enumerate(figures[:COLUMNS]):
        x = EDGE + k * wide
        _write(pen, x, 352, figure.name, 26, SOFT, wide - 20)
        _write(pen, x, 392, figure.value, 58, INK, wide - 20)
        _write(pen, x, 468, figure.interval, 24, SOFT, wide - 20)
    _write(pen, EDGE, HEIGHT - 76, foot, 24, SOFT, WIDTH - 2 * EDGE)
    file = io.BytesIO()
    palette = [(grey, grey, grey) for grey in range(256)]
    palette[COLOURED] = ImageColor.getrgb(colour)[:3]
    image.putpalette([value for entry in palette for value in entry])
    image.save(file, "PNG")
    return file.getvalue()


def _write(
    pen: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int, fill: int, room: int, anchor: str = "la"
) -> None:
    """One line, smaller where it would not fit, down to half; then cut."""
    line = text.translate(PLAIN).encode("ascii", "replace").decode()
    fitting = next((s for s in range(size, size // 2, -2) if _font(s).getlength(line) <= room), size // 2)
    while line and _font(fitting).getlength(line) > room:
        line = line.removesuffix("...")[:-1] + "..." if len(line) > 4 else ""
    pen.text((x, y + (size - fitting)), line, font=_font(fitting), fill=fill, anchor=anchor)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, which cards need")
    return font
