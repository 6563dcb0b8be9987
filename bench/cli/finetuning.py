"""The command that makes a suite's experts: finetune."""

from pathlib import Path

from rich.table import Table

from bench.cli.common import DbOption, RayOption, SuiteArgument, WorkersOption, out, say


def finetune(
    suite: SuiteArgument = "mini-finetune",
    db: DbOption = Path("results.db"),
    workers: WorkersOption = None,
    ray: RayOption = None,
) -> None:
    """Make the suite's experts from its base, by the suite's `finetune` section.

    Every setting of a grid is trained; the expert is the best by validation perplexity. Finished trials are not
    repeated. A run of the suite finds its experts by itself, and makes those that are missing. docs/FINETUNING.md says
    more.
    """
    import lerpbench
    from leaderboard.numbers import number

    rows = lerpbench.finetune(suite, db, workers=workers, ray=ray)
    table = Table("expert", "learning rate", "batch", "steps", "validation perplexity", "base's", "seconds", "")
    for row in rows:
        table.add_row(
            row["expert"], f"{row['learning_rate']:g}", str(row["batch_size"]), str(row["steps"]),
            "not finite" if row["perplexity"] is None else number(row["perplexity"]),
            number(row["perplexity_of_base"]), f"{row['duration_s']:.0f}", "chosen" if row["chosen"] else "",
        )  # fmt: skip
    out.print(table)
    for name in dict.fromkeys(row["expert"] for row in rows):
        trials = [row for row in rows if row["expert"] == name]
        cut = max(row["n_cut"] for row in trials)
        say(f"{name}: {trials[0]['n_train']:,} sentences to learn from, {trials[0]['n_validation']:,} to choose by"
            + (f"; {cut} cut to the model's context" if cut else ""),
            *(f"{name}: {row['folder']}" for row in trials if row["chosen"]))  # fmt: skip
    say(f"records: {db}, view finetuning")
