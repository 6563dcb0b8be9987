"""Commands that read databases and never generate: render, figures, compare and export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from bench.cli.common import DbOption, SiteOption, UrlOption, say
from bench.cli.common import out as screen

Format = Literal["csv", "json", "parquet", "markdown"]
View = Literal["results", "completions", "overhead"]


def render(
    databases: Annotated[list[Path] | None, typer.Argument(help="databases or bundles; default results.db")] = None,
    site: SiteOption = Path("site"),
    url: UrlOption = "",
    cards: Annotated[bool, typer.Option("--cards/--no-cards", help="draw a picture for links to each point")] = True,
) -> None:
    """Write the leaderboard's pages from one or several databases.

    Plain files that work from a folder or any web server. Databases that agree on suite, engine, judges and protocol
    share a board; others stand side by side.
    """
    import lerpbench

    say(f"leaderboard: {lerpbench.render(databases or [Path('results.db')], site, url=url, cards=cards)}")


def figures(
    databases: Annotated[list[Path] | None, typer.Argument(help="databases or bundles; default results.db")] = None,
    folder: Annotated[Path, typer.Option("--out", help="the folder for the files")] = Path("figures"),
    format_: Annotated[str, typer.Option("--format", help="svg, pdf or png")] = "svg",
    prompts: Annotated[str, typer.Option(help="only this prompt set")] = "",
) -> None:
    """Write the paper's figures as files for a paper; needs the extra `figures` and Chromium or Chrome."""
    from leaderboard.paper.static import write_figures
    from leaderboard.show.render import boards_by_folder
    from lerpbench.api import require_folder

    require_folder(folder, "--out")
    found = boards_by_folder(databases or [Path("results.db")])
    written = write_figures({folder / name: board for name, board in found.items()}, format_, prompts)
    say(f"{len(written)} files in {folder}")


def compare(
    a: Annotated[str, typer.Argument(help="a setting such as 'g2(alpha=0.5)', or a method: its reach")],
    b: Annotated[str, typer.Argument(help="what it is compared with")],
    db: DbOption = Path("results.db"),
    suite: Annotated[str | None, typer.Option(help="only this suite's board")] = None,
    prompts: Annotated[str, typer.Option(help="only this prompt set")] = "",
) -> None:
    """Paired differences A - B on the same prompts, with intervals and Holm's correction over the metrics.

    For example: lerpbench compare g2 dexperts, or lerpbench compare 'g2(alpha=0.5)' 'g2(alpha=1)'.
    """
    import lerpbench
    from bench.schema import Number
    from leaderboard.numbers import between, number

    rows = lerpbench.compare(a, b, db, suite=suite, prompts=prompts)
    for title in dict.fromkeys(map(_pair, rows)):
        table = Table("metric", title=title, title_justify="left")
        for column in ("A", "B", "A - B", "95 % interval", "n", "p (Holm)"):
            table.add_column(column, justify="right")
        for row in rows:
            if _pair(row) == title:
                interval = between(Number(row["difference"], row["low"], row["high"]))
                table.add_row(
                    row["metric"], *(number(row[key]) for key in ("value_a", "value_b", "difference")), interval,
                    str(row["n"]), number(row["p_holm"]),
                )  # fmt: skip
        screen.print(table)


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['suite']} on {row['engine']}: {row['a']} (A) minus {row['b']} (B)"


def export(
    out: Annotated[Path, typer.Option("--out", help="a folder, or a file where one thing is written")],
    databases: Annotated[list[Path] | None, typer.Argument(help="databases or bundles; default results.db")] = None,
    form: Annotated[Format, typer.Option("--format", help="the views as tables, or a model card (markdown)")] = "csv",
    view: Annotated[View | None, typer.Option(help="only this view: results, completions or overhead")] = None,
) -> None:
    """Write the public views as files for other tools, or a model card.

    CSV, JSON lines or Parquet of the views results, completions and overhead; `--format markdown` is a model card.
    """
    from leaderboard.show.export import export as exported

    say(*exported(databases or [Path("results.db")], form, out, view))
