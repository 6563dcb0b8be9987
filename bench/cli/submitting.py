"""Commands that hand results on: submit bundles one suite, verify checks a bundle."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.common import DbOption, say

SHOWN = 10  # rows that do not match


def submit(
    out: Annotated[Path, typer.Option("--out", help="the bundle, for instance mini.lerpbench.zip")],
    db: DbOption = Path("results.db"),
    suite: Annotated[str | None, typer.Option(help="which suite, where the database has several")] = None,
) -> None:
    """Bundle one finished suite, so that others can verify and publish it."""
    from bench.submissions import bundle

    manifest = bundle.submit(db, suite, out)
    size = out.stat().st_size / 2**20
    n = manifest.counts
    say(f"{out}: suite {manifest.suite}, {n['points']} points, {n['generations']} generations, {size:.1f} MB")
    say(
        "It tells the commands that were run and what machine ran them; read manifest.json in it before you hand it on."
    )


def verify(
    bundle: Annotated[Path, typer.Argument(help="what `lerpbench submit` made")],
    sample: Annotated[int, typer.Option(min=1, help="prompts of each generation that models judge again")] = 4,
    seed: Annotated[int | None, typer.Option(help="which prompts these are; by default others each time")] = None,
    extract: Annotated[Path | None, typer.Option(help="write the database here if the bundle is right")] = None,
) -> None:
    """Check a bundle: what it says, its schema and keys, and whether its scores follow from its completions."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a bundle names models: nothing is fetched because it says so
    from bench import engines
    from bench.progress import on_terminal
    from bench.submissions.verify import verify as verified
    from bench.suite.loading import quieten

    quieten()
    report = verified(bundle, sample, seed, engines.device(), on_terminal, extract)
    for name, what in report.checked:
        say(f"right    {name}: {what}")
    for name, why in report.skipped:
        say(f"skipped  {name}: {why}")
    for mismatch in report.mismatches[:SHOWN]:
        say(f"WRONG    {mismatch}")
    if report.mismatches:
        more = len(report.mismatches) - SHOWN
        say(f"{bundle}: does not verify{f'; {more} more rows do not match' if more > 0 else ''}")
        raise typer.Exit(1)
    left = f", but for the {len(report.skipped)} things skipped" if report.skipped else ""
    say(f"{bundle}: verified{left}" + (f"; its database is {extract}" if extract else ""))
