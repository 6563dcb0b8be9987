"""The command that makes a suite's experts: finetune."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

import evaluators as evaluator_table
from bench import engines
from bench.cli.common import DbOption, SuiteArgument, device_name, loaded, opened, out, quieten
from bench.schema import Suite, UserError
from leaderboard import numbers

if TYPE_CHECKING:
    from bench.experts.plan import PlannedExpert


def finetune(suite: SuiteArgument = "mini-finetune", db: DbOption = Path("results.db")) -> None:
    """Make the suite's experts from its base; finished trials are not repeated.  See docs/FINETUNING.md."""
    from bench.experts.leaks import require_no_leak
    from bench.experts.plan import given_checkpoints, learned, plan_experts

    found = loaded(suite)
    if found.finetune is None:
        raise UserError(f"suite {found.name} has no finetune section, so it has no experts to make")
    quieten()
    experts = plan_experts(found, given_checkpoints(found))
    registry = evaluator_table.registry()
    require_no_leak(
        learned(experts), {spec.name: registry.create(spec.name, spec.options).held_out() for spec in found.evaluators}
    )
    make(found, experts, db)
    show(experts, f"suite {found.name}")
    out.print(f"records: {db}, view finetuning")
    out.print(f"experts: {experts[0].cache / 'experts'}")


def make(suite: Suite, experts: "list[PlannedExpert]", db: Path) -> None:
    """Train what is missing, with every trial in the database."""
    import torch

    from bench import environment
    from bench.experts.train import Workshop, finetune
    from bench.progress import on_terminal

    device = engines.device()
    facts = environment.describe(device_name(device), torch.get_num_threads())
    rows = suite.finetune.device_batch_size if suite.finetune else None
    with opened(db) as store:
        finetune(experts, Workshop(device, rows, on_terminal, facts), store, store.suite(suite))


def show(experts: "list[PlannedExpert]", title: str) -> None:
    """Every trial beside the base, and which is the expert."""
    table = Table(
        "expert", "learning rate", "batch", "steps", "validation perplexity", "base's", "seconds", "", title=title,
        title_justify="left",
    )  # fmt: skip
    for expert in experts:
        best = expert.best()
        for record in expert.records():
            trial, chosen = record.trial, best is not None and record.key == best.key
            table.add_row(
                expert.name, f"{trial.learning_rate:g}", str(trial.batch_size), str(trial.steps),
                number(record.perplexity), number(record.validations[0][1]), f"{record.duration_s:.0f}",
                "chosen" if chosen else "",
            )  # fmt: skip
    out.print(table)
    for expert in experts:
        cut = max(record.n_cut for record in expert.records())
        out.print(
            f"{expert.name}: {len(expert.train):,} sentences to learn from, {len(expert.validation):,} to choose by"
            + (f"; {cut} cut to the model's context" if cut else "")
        )


def number(perplexity: float | None) -> str:
    return "not finite" if perplexity is None else numbers.number(perplexity)
