"""What runs on several workers must show, measured on one machine; docs/SCALE.md has the numbers.

    python -m tools.cluster_check [--out DIR] PART ...

`kills`: kill -9 of a worker at 20 random moments, over runs on one cluster; `nodes`: a node taken away at 5 random
moments from Ray's own test cluster of three; after both, the views equal the in-process run's.  `speed`: two workers
against one process, one thread each, in turn, on the mini suite.  `placing`: 500 tiny points.  `writer`: what the
driver does for a point of 250,000 synthetic completions.  `paper`: the paper's suite on 8 and 64 GPUs, simulated from
the point costs of a database (--db) of the mini suite.  Every part writes DIR/PART.json.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import methods
from bench import engines, environment
from bench.cluster.agenda import in_pieces, kind_of, most_pieces, pieces
from bench.cluster.hand import Done, PackedPiece
from bench.cluster.nodes import Places
from bench.cluster.packing import pack
from bench.cluster.points import Sweep
from bench.cluster.simulate import simulate
from bench.progress import Task, silently
from bench.run.prepare import Work
from bench.run.stages import Run
from bench.run.units import Judge, Piece, Serve, Verdict
from bench.schema import Completion, MethodSpec, Recipe, Share, Suite
from bench.stats import ScoreColumn
from bench.store.write import Store
from bench.suite.points import plan_points
from evaluators.judges import Judges
from lerpbench import api

Found = dict[str, Any]
KILLS = 20  # of workers
SENTENCE = "the film was a quiet surprise nobody could say why it stayed with us"


def prepare(suite: Suite | str = "mini", only: Sequence[str] = (), limit: int | None = None) -> Work:
    return api.prepare(suite, "transformers", only, limit)


def in_process(work: Work, path: Path) -> float:
    """Seconds of a run in this process."""
    store = Store.open(path)
    run = Run(work, store, store.environment({}, "d"), silently)
    started = time.perf_counter()
    opened = partial(engines.engine_class(work.engine), work.checkpoints, work.suite.dtype, "cpu")
    run.execute(opened, Judges("cpu"))
    store.close()
    return time.perf_counter() - started


def on_workers(
    ray: Any, work: Work, path: Path, workers: int, n_pieces: int = 1, task: Task = silently,
    watch: Callable[[Sweep], None] = lambda sweep: None,
) -> tuple[float, Sequence[Share]]:  # fmt: skip
    """Seconds of a run on workers with one thread each, and who did what."""
    store = Store.open(path)
    run = Run(work, store, store.environment({}, "d"), task)
    sweep = Sweep(ray, run, Places(workers, cpus=1, gpus=0, threads=1),
                  lambda _, units, __: [piece for unit in units for piece in pieces(unit, n_pieces)])  # fmt: skip
    watch(sweep)
    started = time.perf_counter()
    shares = sweep.execute()
    seconds = time.perf_counter() - started
    store.close()
    if run.failed or run.broken:
        raise RuntimeError(f"{run.failed} {run.broken}")
    return seconds, shares


def view(path: Path, name: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as connection:
        return sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)


def same(a: Path, b: Path) -> Found:
    """Row counts of the views, each checked to be equal."""
    rows = {name: (view(a, name), view(b, name)) for name in ("results", "completions")}
    return {name: {"rows": len(x), "equal": x == y} for name, (x, y) in rows.items()}


@contextmanager
def local(cpus: int) -> Iterator[Any]:
    import ray

    ray.init("local", num_cpus=cpus, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray
    finally:
        ray.shutdown()


# ------------------------------------------------------------------------------------------------ losses


@contextmanager
def meanwhile(strike: Callable[[], bool], times: int, least_s: float, most_s: float) -> Iterator[None]:
    """Strike at random moments while the block runs, until it has hit so often."""
    over = threading.Event()

    def work() -> None:
        hits = 0
        while hits < times and not over.wait(random.uniform(least_s, most_s)):
            hits += strike()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def kills(folder: Path) -> Found:
    work = prepare(only=["g1", "dexperts"], limit=4)
    in_process(work, folder / "one.db")
    struck: list[Found] = []
    runs = 0
    with local(2) as ray:
        while len(struck) < KILLS:
            sweeps: list[Sweep] = []

            def strike(seen: list[Sweep] = sweeps, run: int = runs) -> bool:
                busy = [seat for seat in list(seen[0].crew.seats) if seat.is_ready and seat.units]
                if not busy:
                    return False
                victim = random.choice(busy)
                unit = victim.units[0][0]
                struck.append({"run": run, "unit": str(unit)})
                os.kill(victim.hellos[kind_of(unit)].pid, signal.SIGKILL)
                return True

            path = folder / f"{runs}.db"
            with meanwhile(strike, 2, 0.2, 5.0):  # a unit can lose both, and has a third try
                on_workers(ray, work, path, 2, n_pieces=2, watch=sweeps.append)
            found = same(path, folder / "one.db")
            if not all(one["equal"] for one in found.values()):
                raise RuntimeError(f"run {runs}: {found}")
            runs += 1
            print(f"kills: {len(struck)} so far, {runs} runs, {found}", flush=True)
    return {"kills": len(struck), "runs": runs, "views": found, "struck": struck}


def nodes(folder: Path) -> Found:
    """Two runs on two nodes, three on three; each loses one, and goes on with those that are left."""
    import ray
    from ray.cluster_utils import Cluster

    work = prepare(only=["g1"], limit=4)
    in_process(work, folder / "one.db")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    present: list[Any] = []
    runs: list[Found] = []

    def strike() -> bool:
        cluster.remove_node(present.pop(random.randrange(len(present))), allow_graceful=False)
        return True

    try:
        for i, n_nodes in enumerate((2, 2, 3, 3, 3)):
            present += [cluster.add_node(num_cpus=1) for _ in range(n_nodes - len(present))]
            path = folder / f"nodes{i}.db"
            with meanwhile(strike, 1, 4.0, 9.0):
                _, shares = on_workers(ray, work, path, n_nodes, n_pieces=2)
            lost = n_nodes - len(present)
            runs.append({"nodes": n_nodes, "lost": lost, "units": [share.units for share in shares],
                         **same(path, folder / "one.db")})  # fmt: skip
            print(f"nodes: {runs[-1]}", flush=True)
    finally:
        ray.shutdown()
    return {"lost": sum(one["lost"] for one in runs), "runs": runs}


# ------------------------------------------------------------------------------------------------ speed


def speed(folder: Path, rounds: int) -> Found:
    """One process and two workers in turn, one thread each, into fresh databases; start-up apart: imports, Ray and the
    workers' greetings.  Opening the engine and loading the judges is in both."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a thread each, tokenizers among them
    work = prepare()
    told: list[Found] = []
    for i in range(rounds):
        alone = folder / f"alone{i}.db"
        process_s = in_process(work, alone)
        with local(2) as ray:
            path = folder / f"two{i}.db"
            whole_s, shares = on_workers(ray, work, path, 2)
        workers_s = max(share.present_s for share in shares)
        views = same(path, alone)
        if not all(one["equal"] for one in views.values()):
            raise RuntimeError(f"round {i}: {views}")
        told.append({
            "process_s": process_s, "workers_s": workers_s, "start_s": whole_s - workers_s,
            "ratio": process_s / workers_s, "busy": [share.busy for share in shares],
            "generating_s": [share.generating_s for share in shares],
            "judging_s": [share.judging_s for share in shares], "views": views,
        })  # fmt: skip
        print(f"speed: round {i + 1}: {told[-1]}", flush=True)
        alone.replace(folder / "mini.db")
    return {"ratio": statistics.median(one["ratio"] for one in told), "rounds": told}


def placing(folder: Path) -> Found:
    """Points as small as they get: one prompt of each set, no judge."""
    alphas = tuple(i / 500 for i in range(500))
    suite = api.load("mini").model_copy(
        update={"name": "many", "methods": (MethodSpec(name="g1", params={"alpha": alphas}),), "evaluators": (),
                "overhead": None}
    )  # fmt: skip
    work = prepare(suite, limit=1)
    found: Found = {"in_process_s": in_process(work, folder / "one.db")}
    with local(2) as ray:
        for workers in (1, 2):
            _, shares = on_workers(ray, work, folder / f"{workers}.db", workers)
            busy, present = sum(s.busy_s for s in shares), sum(s.present_s for s in shares)
            found[f"workers_{workers}"] = {
                "working_s": max(s.present_s for s in shares), "busy_s": busy, "overhead": 1 - busy / present,
                "equal": same(folder / f"{workers}.db", folder / "one.db"),
            }  # fmt: skip
            print(found, flush=True)
    return found


# ------------------------------------------------------------------------------------------------ the writer


def writer(folder: Path, points: int = 4, prompts: int = 10_000, samples: int = 25) -> Found:
    """What the driver does for each point: take completions from the object store, keep them, say in which order, and
    keep three judges' verdicts with a score a completion."""
    suite = api.load("mini")
    words = SENTENCE.split()
    source = folder / "prompts.jsonl"
    source.write_text("".join(json.dumps({"text": f"Prompt {i} says"}) + "\n" for i in range(prompts)))
    alphas = tuple(i / points for i in range(points))
    suite = suite.model_copy(update={
        "name": "writer", "methods": (MethodSpec(name="g1", params={"alpha": alphas}),), "overhead": None,
        "prompts": {"neutral": suite.prompts["neutral"].model_copy(update={"source": str(source)})},
        "sampling": suite.sampling.model_copy(update={"samples": samples}),
        "evaluators": tuple(e for e in suite.evaluators if e.name in ("sentiment", "acceptability", "perplexity")),
    })  # fmt: skip
    work = prepare(suite)
    store = Store.open(folder / "w.db")
    run = Run(work, store, store.environment({}, "d"), silently)
    chance = random.Random(0)
    spent = {"take": 0.0, "keep": 0.0, "order": 0.0, "verdicts": 0.0}
    by_point = []

    cpu_s = 0.0

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        nonlocal cpu_s
        started, before = time.perf_counter(), time.process_time()
        yield
        spent[what] += time.perf_counter() - started
        cpu_s += time.process_time() - before

    n_tokens = 0
    with local(1) as ray, run.recorded():
        for position in range(points):
            drawn = [
                Completion(p, s, " ".join(chance.choices(words, k=18)), 25, "length")
                for p in range(prompts) for s in range(samples)
            ]  # fmt: skip
            n_tokens += sum(c.n_tokens for c in drawn)
            ref = ray.put(Done([PackedPiece(pack(drawn), 1.0)], 1.0))
            del drawn
            before = sum(spent.values())
            with timed("take"):
                events = list(ray.get(ref).events())
            with timed("keep"):
                for event in events:
                    run.keep(Serve(position, Piece()), event)
            with timed("order"):
                run.order_of(Judge(position, 0))
            for place, item in enumerate(work.evaluators):
                metrics = item.evaluator.metrics()
                scores = {metrics[0].name: ScoreColumn([0.123456789] * prompts * samples, {})}
                verdict = Verdict(
                    place, metrics, scores, statistics=[], items=work.prompts, estimates=[], distances=[],
                    duration_s=1.0,
                )  # fmt: skip
                with timed("verdicts"):
                    run.keep(Judge(position, place), verdict)
            by_point.append(sum(spent.values()) - before)
            print(f"writer: point {position} took {by_point[-1]:.2f} s", flush=True)
    completions = points * prompts * samples
    seconds = sum(spent.values())
    return {
        "points": points, "completions": completions, "tokens": n_tokens, "seconds": spent, "by_point_s": by_point,
        "completions_per_s": completions / seconds, "tokens_per_s": n_tokens / seconds,
        "keeping_alone_tokens_per_s": n_tokens / spent["keep"], "seconds_per_point": seconds / points,
        "cpu_s_per_point": cpu_s / points,
        "database_bytes": (folder / "w.db").stat().st_size,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ the paper


def paper(folder: Path, db: Path, keeping_s: float) -> Found:
    """Costs of the paper's points as those of the mini suite's: seconds a model token of a recorded generation, drawn
    at random within its space; and of a recorded verdict of each judge and probe.  The scale: 50,000 tokens/s a GPU.
    """
    suite = api.load("paper")
    recipes = {point.recipe.model_dump_json(): point.recipe for point in plan_points(suite, methods.registry())}
    n_completions, per_second = 10_000 * suite.sampling.samples, 50_000
    chance = random.Random(0)
    costs = recorded(db)
    n_tokens = n_completions * costs["tokens_per_completion"]
    mean = sum(costs["weights"]) / len(costs["weights"])
    found: Found = {"mixtures": len(recipes), "recorded": {k: len(v) for k, v in costs.items() if isinstance(v, list)}}
    for engine in ("transformers", "vllm"):
        most = most_pieces(n_completions, 10_000, engines.shard_prompts(engine))
        for workers in (8, 64):
            dear = [
                chance.choice(costs[recipe.space]) / mean * recipe.models_per_token * n_tokens / per_second
                for recipe in recipes.values()
            ]
            models = {Serve(i, Piece()): float(one.models_per_token) for i, one in enumerate(recipes.values())}
            units = in_pieces(models, workers, most)
            serving = {}
            for unit in units:
                assert unit.piece is not None
                probing = sum(chance.choice(one) for one in costs["probes"]) / mean * n_tokens / per_second
                serving[unit] = dear[unit.position] / unit.piece.of + (probing if unit.piece.index == 0 else 0.0)
            judging = {
                i: [(Judge(i, place), chance.choice(one) / mean * n_tokens / per_second)
                    for place, one in enumerate(costs["judges"])]
                for i in range(len(recipes))
            }  # fmt: skip
            one = simulate(serving, judging, workers, start_s=120.0, keeping_s=keeping_s * len(recipes) / (
                len(serving) + sum(map(len, judging.values()))))  # fmt: skip
            key = f"{workers} GPUs, {engine}"
            found[key] = {"units": one.units, "hours": one.duration_s / 3600, "busy": one.busy}
            print(key, found[key], flush=True)
    return found


def recorded(db: Path) -> Mapping[str, Any]:
    """Of every stored generation, seconds a model token by space; of every judge and probe, seconds over the tokens of
    the completions that a point has: the unit in which all of them add up."""
    with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as connection:
        rows = connection.execute(
            "SELECT recipe, n_tokens, n_completions, duration_s FROM generations "
            "JOIN mixtures ON mixtures.id = mixture_id"
        ).fetchall()
        verdicts = connection.execute(
            "SELECT evaluator, generation_id IS NULL, duration_s FROM evaluations WHERE evaluator != 'weight_distance'"
        ).fetchall()
    spaces: dict[str, list[float]] = {"weights": [], "logits": []}
    for recipe, n_tokens, _, duration_s in rows:
        mixed = Recipe.model_validate_json(recipe)
        spaces[mixed.space].append(duration_s / n_tokens / mixed.models_per_token)
    tokens = sum(row[1] for row in rows) / len(rows)
    names = dict.fromkeys((evaluator, probe) for evaluator, probe, _ in verdicts)
    by_name = {key: [s / tokens for name, probe, s in verdicts if (name, probe) == key] for key in names}
    return {
        **spaces,
        "tokens_per_completion": sum(row[1] for row in rows) / sum(row[2] for row in rows),
        "judges": [found for (_, probe), found in by_name.items() if not probe],
        "probes": [found for (_, probe), found in by_name.items() if probe],
    }


PARTS: Mapping[str, Callable[..., Found]] = {
    "kills": kills, "nodes": nodes, "speed": speed, "placing": placing, "writer": writer, "paper": paper,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("cluster-check"))
    parser.add_argument("--db", type=Path, help="recorded point costs, for `paper`")
    parser.add_argument("--keeping-s", type=float, default=0.0, help="what the writer needs for a point, for `paper`")
    parser.add_argument("--rounds", type=int, default=3, help="of `speed`")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random.seed(given.seed)
    os.environ.setdefault("RAY_worker_niceness", "0")
    given.out.mkdir(parents=True, exist_ok=True)
    for part in given.parts:
        options: Mapping[str, Found] = {
            "paper": {"db": given.db, "keeping_s": given.keeping_s}, "speed": {"rounds": given.rounds},
        }  # fmt: skip
        arguments = options.get(part, {})
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[part](Path(folder), **arguments)
            if (kept := Path(folder) / "mini.db").exists():
                kept.replace(given.out / "mini.db")
        facts = environment.describe("cpu", int(os.environ.get("OMP_NUM_THREADS", "0")))
        text = json.dumps({"machine": facts, **found}, indent=1)
        (given.out / f"{part}.json").write_text(text)
        print(part, json.dumps({k: v for k, v in found.items() if k != "struck"}), flush=True)


if __name__ == "__main__":
    main()
