"""Commands that make results public: publish, and the board that others add to."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import UrlOption, say

if TYPE_CHECKING:
    from bench.publishing.parcels import Parcel

board = typer.Typer(no_args_is_help=True, help="A public board in a repository of its own, to which others submit.")


def publish(
    databases: Annotated[list[Path] | None, typer.Argument(help="databases or bundles; default results.db")] = None,
    space: Annotated[str | None, typer.Option(help="OWNER/NAME of a Space on the hub: the site goes there")] = None,
    dataset: Annotated[str | None, typer.Option(help="OWNER/NAME of a dataset on the hub: bundles and tables")] = None,
    models: Annotated[bool, typer.Option("--models", help="offer each model on the hub its results")] = False,
    branch: Annotated[str | None, typer.Option(help="commit the site to this branch here, for GitHub Pages")] = None,
    suite: Annotated[str | None, typer.Option(help="which suite is bundled, where a database has several")] = None,
    url: UrlOption = "",
    private: Annotated[bool, typer.Option("--private", help="what is new on the hub is not public")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show every file with its size and send nothing")] = False,
) -> None:
    """Publish the site and what it was made from: on the Hugging Face hub, or on a branch for GitHub Pages.

    Who writes on the hub is who is logged in there (`hf auth login`). `--models` opens pull requests that say in which
    dataset the results are, so it needs `--dataset`.
    """
    from bench.publishing import hub, parcels
    from bench.publishing.branch import commit_site, pages_address
    from bench.schema import UserError

    if not (space or dataset or branch):
        raise UserError("say where: --space OWNER/NAME, --dataset OWNER/NAME or --branch NAME; with --dry-run first")
    if models and not dataset:
        raise UserError("--models needs --dataset OWNER/NAME: results on a model's page say where they are from")
    found = databases or [Path("results.db")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = [parcels.space(space, found, folder / "space", url or hub.site_address(space))] if space else []
        made += [parcels.dataset(dataset, found, suite, folder / "dataset")] if dataset else []
        if models and dataset:
            made += parcels.models(found, dataset, hub.address(made[0]), folder / "models")
        made += [parcels.branch(branch, found, folder / "branch", url or pages_address(Path.cwd()))] if branch else []
        for parcel in made:
            if dry_run:
                show(parcel)
            elif parcel.kind == "branch":
                say(f"branch {branch}: commit {commit_site(parcel, Path.cwd())}; `git push origin {branch}` sends it")
            else:
                say(f"{parcel.kind} {parcel.target}: {len(parcel.files)} files: {hub.send(parcel, private)}")


def show(parcel: "Parcel") -> None:
    """Every file that the parcel holds, with its size in bytes."""
    sizes = {name: (parcel.folder / name).stat().st_size for name in parcel.files}
    say(f"{parcel.kind} {parcel.target}: {len(sizes)} files, {sum(sizes.values()):,} bytes; nothing is sent")
    for name, size in sizes.items():
        say(f"  {size:>12,}  {name}")


@board.command()
def init(folder: Annotated[Path, typer.Argument(help="a new or an empty folder")]) -> None:
    """Write the repository of a public board: bundles, a check for each pull request, and what publishes."""
    from bench.publishing.board import create

    for path in create(folder):
        say(path)
    say(f"{folder}: `git init` there and push it to GitHub; README.md says what is to be set up once")


@board.command()
def check(
    changed: Annotated[Path, typer.Argument(help="a file with the changed paths, NUL after each (git diff -z)")],
    author: Annotated[str, typer.Option(help="whose change it is")],
    report: Annotated[Path, typer.Option(help="what was found is written here, as Markdown")] = Path("report.md"),
    sample: Annotated[int, typer.Option(min=1, help="prompts of each generation that models judge again")] = 4,
) -> None:
    """Verify the bundles that a change of the board brings; nothing of theirs is run."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a bundle names models: nothing is fetched because it says so
    from bench import engines
    from bench.progress import on_terminal
    from bench.publishing import board as boards
    from bench.schema import UserError
    from bench.suite.loading import quieten

    quieten()
    try:
        paths = [path for path in changed.read_bytes().decode(errors="replace").split("\0") if path]
    except OSError as error:
        raise UserError(f"{changed}: cannot be read: {error.strerror or error}") from error
    found = boards.check(Path.cwd(), paths, author, sample, engines.device(), on_terminal)
    text = boards.describe(found)
    report.write_text(text, encoding="utf-8")
    say(*text.splitlines())
    if not all(checked.right for checked in found):
        raise typer.Exit(1)
