"""Commands that read databases and never generate: render, figures, compare and export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli.common import DbOption, SiteOption, require_folder
from bench.cli.common import out as screen

Format = Literal["csv", "json", "parquet", "markdown"]
View = Literal["results", "completions", "overhead"]


def render(
    databases: Annotated[list[Path] | None, typer.Argument(help="databases; default results.db")] = None,
    site: SiteOption = Path("site"),
) -> None:
    """Write the leaderboard's pages from one or several databases."""
    from leaderboard.show.render import render as rendered

    require_folder(site, "--site")
    rendered(databases or [Path("results.db")], site)
    screen.print(f"leaderboard: {site / 'index.html'}")


def figures(
    databases: Annotated[list[Path] | None, typer.Argument(help="databases; default results.db")] = None,
    folder: Annotated[Path, typer.Option("--out", help="the folder for the files")] = Path("figures"),
    format_: Annotated[str, typer.Option("--format", help="svg, pdf or png")] = "svg",
    prompts: Annotated[str, typer.Option(help="only this prompt set")] = "",
) -> None:
    """Write the paper's figures as files for a paper; needs the extra `figures` and Chromium or Chrome."""
    from leaderboard.paper.static import write_figures
    from leaderboard.show.render import boards_by_folder

    require_folder(folder, "--out")
    found = boards_by_folder(databases or [Path("results.db")])
    written = write_figures({folder / name: board for name, board in found.items()}, format_, prompts)
    screen.print(f"{len(written)} files in {folder}")


def compare(
    a: Annotated[str, typer.Argument(help="a setting such as 'g2(alpha=0.5)', or a method: its reach")],
    b: Annotated[str, typer.Argument(help="what it is compared with")],
    db: DbOption = Path("results.db"),
    suite: Annotated[str | None, typer.Option(help="only this suite's board")] = None,
    prompts: Annotated[str, typer.Option(help="only this prompt set")] = "",
) -> None:
    """Paired differences A - B on the same prompts, with intervals and Holm's correction."""
    from leaderboard.measure.comparison import compare as compared
    from leaderboard.measure.comparison import describe

    for comparison in compared([db], a, b, suite=suite, prompts=prompts):
        print("\n".join(describe(comparison)))


def export(
    out: Annotated[Path, typer.Option("--out", help="a folder, or a file where one thing is written")],
    databases: Annotated[list[Path] | None, typer.Argument(help="databases; default results.db")] = None,
    form: Annotated[Format, typer.Option("--format", help="the views as tables, or a model card (markdown)")] = "csv",
    view: Annotated[View | None, typer.Option(help="only this view: results, completions or overhead")] = None,
) -> None:
    """Write the public views for other tools, or a model card."""
    from leaderboard.show.export import export as exported

    for path in exported(databases or [Path("results.db")], form, out, view):
        print(path)
