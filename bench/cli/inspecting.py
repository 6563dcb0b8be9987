"""Commands that show what there is: suites, methods, evaluators, and this machine."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from bench.cli.common import out, say

DESCRIBED = {
    "Formula": "formula",
    "Source": "source",
    "Mixes": "mixes",
    "Models that run for a token": "models_per_token",
}


def suites() -> None:
    """The packaged suites; each name stands where a command takes a suite."""
    import lerpbench
    from bench.suite.load import packaged_suites

    table = Table("suite", "title", "methods")
    for name in packaged_suites():
        suite = lerpbench.load(name)
        table.add_row(name, suite.title, ", ".join(dict.fromkeys(spec.name for spec in suite.methods)))
    out.print(table)


def methods(
    name: Annotated[str | None, typer.Argument(help="show one: formula, source, space, cost, parameters")] = None,
) -> None:
    """The registered control methods, or one with its formula, source and parameters."""
    import methods as method_table

    describe_registry(method_table.registry(), name)


def evaluators(name: Annotated[str | None, typer.Argument(help="show one evaluator's fields")] = None) -> None:
    """The registered evaluators, or one with its fields and the metrics it reports."""
    import evaluators as evaluator_table

    describe_registry(evaluator_table.registry(), name)


def doctor(
    db: Annotated[Path | None, typer.Option("--db", help="check a database; exit code 1 where it is damaged")] = None,
    ray: Annotated[str | None, typer.Option("--ray", help="show the Ray cluster of an address")] = None,
) -> None:
    """What this machine can do, and which engine `auto` takes here; with --db, whether a database is whole."""
    if db is not None:
        examine(db)
        return
    if ray is not None:
        show_cluster(ray)
        return
    import lerpbench
    from bench import engines
    from bench.suite.checkpoints import MODELS

    details = lerpbench.machine()
    reason = engines.why_not_vllm()
    table = Table(show_header=False)
    packages = ", ".join(f"{key} {value}" for key, value in details["packages"].items())
    for label, value in (
        ("python", f"{details['python']} on {details['platform']}"),
        ("processor", f"{details['processor']}, {details['cores']} cores, {details['memory_gib']} GiB"),
        ("device", details["device"]),
        ("packages", packages),
        ("packaged models", ", ".join(sorted(p.name for p in MODELS.iterdir())) if MODELS.is_dir() else "none"),
        ("engine auto", f"{engines.choose('auto')}" + (f": {reason}" if reason else "")),
    ):
        table.add_row(label, value)
    out.print(table)


def show_cluster(address: str) -> None:
    """The machines of a Ray cluster, and the workers that `auto` takes there."""
    from bench.cluster.nodes import connected, most_threads, nodes, places

    with connected(address) as ray:
        found = nodes(ray)
    table = Table("node", "cores", "GPUs", "memory", "state")
    for node in found:
        table.add_row(node.name, str(node.cpus), str(node.gpus), f"{node.memory_gib:.1f} GiB",
                      "alive" if node.alive else "lost")  # fmt: skip
    out.print(table)
    room = places(found, "auto", most_threads())
    say(f"--workers auto: {room.workers}, {room.threads} threads each" + (", one GPU each" if room.gpus else ""))


def examine(db: Path) -> None:
    """Say of a database what is damaged and what is not, a line each; exit code 1 where something is."""
    from bench.store.checksums import PARTS
    from bench.store.read import Reader

    with closing(Reader.open(db, checked=False)) as store:
        found = store.damages()
        damaged = {one.part for one in found}
        whole = ", ".join(f"{part} ({store.count(part):,} rows)" for part in PARTS if part not in damaged)
    for damage in found:
        say(f"DAMAGED  {damage}")
    say(f"whole: {whole}" if found else f"{db}: every row is as it was stored: {whole}")
    if found:
        raise typer.Exit(1)


def describe_registry(registry: Any, name: str | None) -> None:
    """A table of all, or the fields of one.  A plugin that cannot be loaded is listed with the reason."""
    from bench.schema import UserError

    if name is not None:
        describe_class(name, registry.get(name))
        return
    table = Table(registry.kind, "what it is", "fields")
    for known in registry.names():
        try:
            cls = registry.get(known)
        except UserError as error:
            table.add_row(known, f"broken: {error}", "")
            continue
        table.add_row(known, summary_of(cls), ", ".join(cls.model_fields))
    out.print(table)


def describe_class(name: str, cls: Any) -> None:
    say(name, *(cls.__doc__ or "").splitlines())
    for label, attribute in DESCRIBED.items():
        if getattr(cls, attribute, ""):
            say(f"{label}: {getattr(cls, attribute)}")
    table = Table("field", "type", "default", "meaning")
    for field, info in cls.model_fields.items():
        default = "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
        kind = getattr(info.annotation, "__name__", None) or str(info.annotation)
        table.add_row(field, kind, default, info.description or "")
    if cls.model_fields:
        out.print(table)
    if hasattr(cls, "metrics"):
        describe_metrics(cls)


def describe_metrics(cls: Any) -> None:
    """The metrics of an evaluator in its default configuration, where it has one."""
    try:
        metrics = cls().metrics()
    except ValueError:  # a required field: the metrics depend on it
        return
    table = Table("metric", "better", "unit", "definition")
    for metric in metrics:
        table.add_row(metric.name, metric.direction, metric.unit, metric.description)
    out.print(table)


def summary_of(cls: Any) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0]
