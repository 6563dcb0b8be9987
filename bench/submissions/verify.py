"""Does a submitted bundle hold what it says, and do its scores follow from its completions?

Container and schema first, since all that comes later reads the database; then the facts that follow from stored rows
alone; then `recompute`, which judges again.  Every text of a bundle is hostile: it names no code to import and no
model to fetch, and is shown quoted.
"""

import re
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import engines, environment
from bench.progress import Task
from bench.schema import Suite, UserError, canonical_json
from bench.store.inspect import faults
from bench.store.read import Reader
from bench.submissions import bundle as bundles
from bench.submissions.bundle import Manifest, stored_suite
from bench.submissions.findings import Mismatch, Report, shown
from bench.submissions.recompute import all_points, builtin, recompute
from bench.suite import keys
from bench.suite.checkpoints import MODELS, resolve


def verify(bundle: Path, sample: int, seed: int | None, device: str, task: Task, extract: Path | None = None) -> Report:
    """Check a bundle.  `sample`: how many prompts of each generation are judged again, drawn by `seed` (None: afresh).

    With `extract`, a database that passes is written there.  Raises UserError for what is no bundle.
    """
    if extract is not None and extract.exists():
        raise UserError(f"{extract}: exists already; give the name of a new file")
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        path, manifest = bundles.unpack(bundle, Path(folder))
        claimed, found = manifest.files, {bundles.DATABASE: bundles.record(path)}
        report.check("manifest", f"the SHA-256 of {bundles.DATABASE}", lambda: differences("files", claimed, found))
        if report.check(
            "schema",
            "tables, views, types, JSON and references are lerpbench's",
            lambda: (Mismatch(*fault) for fault in faults(path)),
        ):
            with closing(Reader.open(path, checked=False)) as store:
                facts(store, manifest, report)
                recompute(store, report, sample, secrets.randbits(32) if seed is None else seed, device, task)
        if extract is not None and report.verified:
            try:
                extract.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, extract)
            except OSError as error:
                raise UserError(f"{extract}: cannot be written: {error.strerror or error}") from error
    return report


def facts(store: Reader, manifest: Manifest, report: Report) -> None:
    """What follows from stored rows alone."""
    n = manifest.counts
    bare = manifest.model_copy(update={"files": {}})
    report.check("manifest", "suite, commit, environments, checkpoints and counts are the database's",
                 lambda: differences("manifest", bare.model_dump(), bundles.facts(store).model_dump()))  # fmt: skip
    report.check("checksums", "every row is as it was stored",
                 lambda: (Mismatch("checksums", {"part": one.part}, "rows", str(one), "as stored")
                          for one in store.damages()))  # fmt: skip
    report.check("environments", f"{n.get('environments')} digests", lambda: environments(store))
    report.check("completeness", "every point, completion and verdict that the suite asks for is there",
                 lambda: completeness(store))  # fmt: skip
    report.check("points", f"{n.get('points')} points stand for their method's recipe, served as the suite says",
                 lambda: points(store, report))  # fmt: skip
    report.check("mixtures", f"{n.get('mixtures')} keys follow from recipe, checkpoint bytes and engine",
                 lambda: mixtures(store))  # fmt: skip
    report.check("metrics", "directions, units and descriptions of built-in evaluators are theirs",
                 lambda: metrics(store))  # fmt: skip
    report.check("references", "every row stands for something of the suite",
                 lambda: (Mismatch(table, {"id": id_}, "references", 0, "at least one row that refers to it")
                          for table, id_ in store.unreferenced()))  # fmt: skip
    report.check("overhead", f"{n.get('overhead_records')} lines lie in their own intervals", lambda: overhead(store))
    report.skipped += [
        ("overhead", "a timing cannot be made again from what is stored"),
        ("completions", "whether these checkpoints wrote them: `lerpbench run` on a like machine makes them again"),
        ("provenance", "commands, dates, durations, environments and what survived rounding are taken as stored"),
    ]


def differences(table: str, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Mismatch]:
    for key in sorted(stored.keys() | expected.keys()):
        if stored.get(key) != expected.get(key):
            yield Mismatch(table, {"entry": key}, "content", stored.get(key), expected.get(key))


# ------------------------------------------------------------------------------------------------------ stored rows


def environments(store: Reader) -> Iterator[Mismatch]:
    for digest, details in store.environments().items():
        expected = environment.digest(details)
        if digest != expected:
            yield Mismatch("environments", {"details": canonical_json(details)}, "digest", digest, expected)


def completeness(store: Reader) -> Iterator[Mismatch]:
    if (n := store.count("suites")) != 1:
        yield Mismatch("suites", {}, "rows", n, 1)
        return
    (name,) = store.suite_definitions()
    suite = stored_suite(store)
    if name != suite.name and not re.fullmatch(rf"{re.escape(suite.name)}-\d+prompts", name):
        yield Mismatch("suites", {}, "name", name, suite.name)
    yield from sources(suite, bundles.checkpoints(store))
    for gap in bundles.missing(store):
        yield Mismatch("points", {"suite": suite.name}, "gap", gap, "what the suite asks for, no more")
    for on in store.suites():
        names = {point.id: point.name for point in store.points(on.id, on.engine)}
        times = Counter((point, row.metric, row.prompts) for point, row, _ in store.results(on.id, on.engine))
        for (point, metric, prompts), n in times.items():
            if n > 1:
                where = {"point": names[point], "metric": metric, "prompts": prompts or "all"}
                yield Mismatch("estimates", where, "rows", n, 1)


def sources(suite: Suite, digests: Mapping[str, str]) -> Iterator[Mismatch]:
    """A checkpoint that is called packaged has the packaged bytes, and the other way round."""
    packaged = {f"mini:{path.name}": resolve(f"mini:{path.name}").digest for path in sorted(MODELS.glob("*"))}
    for name, source in suite.checkpoints.items():
        digest = digests.get(name)
        if digest is None or not isinstance(source, str):
            continue  # an adapter's digest covers more than its base's
        named = [known for known, one in packaged.items() if one == digest]
        if source.startswith("mini:") and packaged.get(source) != digest:
            yield Mismatch("suites", {"checkpoint": name}, "digest", digest, packaged.get(source, "a packaged model"))
        elif named and source not in named:
            yield Mismatch("suites", {"checkpoint": name}, "source", source, named[0])


def metrics(store: Reader) -> Iterator[Mismatch]:
    stored = {metric.name: metric for metric, _ in store.metrics()}
    for name, options in dict.fromkeys((one.evaluator, one.options) for one in store.evaluations()):
        evaluator = builtin(name, options)
        for metric in () if evaluator is None else evaluator.metrics():
            has = stored.get(metric.name, metric)
            for column in ("direction", "unit", "description"):
                if getattr(has, column) != getattr(metric, column):
                    yield Mismatch("metrics", {"metric": metric.name}, column, getattr(has, column),
                                   getattr(metric, column))  # fmt: skip


def points(store: Reader, report: Report) -> Iterator[Mismatch]:
    """Each point's recipe is its method's at its parameters; what stands for it is of its mixture and of the suite."""
    import methods

    suite = stored_suite(store)
    registry = methods.registry()
    unknown: set[str] = set()
    digests: dict[str, str] = {}
    generations = {one.id: one for one in store.generations()}
    for point in all_points(store):
        row = {"point": point.name, "engine": point.engine}
        mixture, generation = point.mixture, generations.get(point.generation_id or 0)
        if point.method in methods.TABLE:
            made = registry.create(point.method, dict(point.params)).recipe()
            if mixture.recipe != made:
                yield Mismatch("points", row, "recipe", mixture.recipe.model_dump(), made.model_dump())
        else:
            unknown.add(point.method)
        facts: list[tuple[str, Any, Any]] = [
            ("engine", mixture.engine, point.engine),
            ("dtype", mixture.dtype, suite.dtype),
            *((f"checkpoint {name}", digest, digests.setdefault(name, digest))
              for name, digest in mixture.checkpoints.items()),
        ]  # fmt: skip
        if generation is not None:
            facts += [("sampling", generation.sampling, suite.sampling),
                      ("generation's mixture", generation.mixture_id, mixture.id)]  # fmt: skip
        for column, stored, wanted in facts:
            if stored != wanted:
                yield Mismatch("points", row, column, stored, wanted)
    yield from _strangers(store)
    for name in sorted(unknown):
        report.skipped.append((f"method {shown(name)}", "not built in: its recipes are taken as stored"))


def _strangers(store: Reader) -> Iterator[Mismatch]:
    """Verdicts at a point that are about another point's mixture or completions."""
    points = {point.id: point for point in all_points(store)}
    evaluations = {one.id: one for one in store.evaluations()}
    for point_id, evaluation_id in store.links():
        point, one = points[point_id], evaluations[evaluation_id]
        if one.mixture_id != point.mixture.id or one.generation_id not in (None, point.generation_id):
            expected = "one of this point's own mixture and completions"
            yield Mismatch("point_evaluations", {"point": point.name}, "evaluation", one.key, expected)


def mixtures(store: Reader) -> Iterator[Mismatch]:
    for mixture in store.mixtures():
        versions = range(engines.engine_version(mixture.engine), 0, -1)  # which one it was is not stored
        known = [
            keys.mixture_key(mixture.engine, v, mixture.dtype, mixture.recipe, mixture.checkpoints) for v in versions
        ]
        if mixture.key not in known:
            yield Mismatch("mixtures", {"recipe": mixture.recipe.model_dump()}, "key", mixture.key, known[0])


def overhead(store: Reader) -> Iterator[Mismatch]:
    for suite, engine in store.ledgers():
        for line in store.overhead_records(suite, engine):
            row = {name: getattr(line, name) for name in ("method", "batch_size", "new_tokens", "metric")}
            spans = {
                "value": (line.low, line.value, line.high),
                "ratio_to_base": (line.ratio_low, line.ratio_to_base, line.ratio_high),
            }
            for column, (low, value, high) in spans.items():
                if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
                    yield Mismatch("overhead_records", row, column, value, f"between {low!r} and {high!r}")
