"""Tables and text in Markdown."""

from bench.markdown import escaped, table


def test_a_table_is_a_line_a_row_and_its_cells_are_text() -> None:
    assert table(["a", "b_1"], [(1, "x|y"), ("<b>", "two\nlines")]).splitlines() == [
        "| a      | b\\_1      |",
        "|--------|-----------|",
        "| 1      | x\\|y      |",
        "| &lt;b> | two lines |",
    ]


def test_markup_is_escaped() -> None:
    assert escaped("[*a*](b) `c` \\d") == "\\[\\*a\\*\\](b) \\`c\\` \\\\d"
