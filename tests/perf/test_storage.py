"""Storage at the paper's scale: 10,000 prompts x 25 completions a point, three scores each."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from bench.schema import Completion, Metric, Point, Prompt, PromptSource, Recipe, Suite
from bench.stats import ScoreColumn, ratio_statistic
from bench.store import Store

PROMPTS = [Prompt(set="neutral", row=row, text=f"The movie number {row} was") for row in range(10_000)]
SAMPLES = 25
WORDS = [f"{word}{ending}" for word in ("film", "story", "great", "bad", "long") for ending in ("", "s", "ed", "ing")]
METRICS = ("sentiment", "acceptability", "perplexity")
SUITE = Suite(name="s", checkpoints={"base": "x"}, prompts={"neutral": PromptSource(source="x")}, methods=())


def completions(seed: int) -> list[Completion]:
    """250,000 completions of about 120 characters."""
    drawn = np.random.default_rng(seed).integers(len(WORDS), size=(len(PROMPTS) * SAMPLES, 20))
    texts = [" " + " ".join(WORDS[i] for i in row) for row in drawn.tolist()]
    return [Completion(i // SAMPLES, i % SAMPLES, text, 30, "length") for i, text in enumerate(texts)]


def write(store: Store, key: str, found: list[Completion], scores: dict[str, np.ndarray]) -> None:
    environment = store.environment({}, "d")
    recipe = Recipe(space="weights", coefficients={"base": 1})
    mixture = store.mixture(key, "transformers", "float32", recipe, {"base": "b"})
    point = store.place(store.suite(SUITE), "transformers", 0, Point(method=key, params={}, recipe=recipe), mixture)
    generation = store.add_generation(key, mixture, {}, PROMPTS, found, 1.0, environment)
    prompt_of = np.array([c.prompt for c in found])
    everywhere = np.ones(len(PROMPTS), dtype=bool)
    evaluations = []
    for metric, values in scores.items():
        statistic = ratio_statistic(metric, prompt_of, values, len(PROMPTS))
        evaluations.append(
            store.add_evaluation(
                f"{key}-{metric}", metric, 1, {}, mixture, generation, 1.0, environment,
                metrics=[Metric(name=metric)], scores={metric: ScoreColumn(values.tolist())}, statistics=[statistic],
                items=PROMPTS, estimates=[statistic.estimate(everywhere, None)],
            )
        )  # fmt: skip
    store.link(point, generation, evaluations)


def test_a_point_of_the_paper_is_written_fast_and_small(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    store = Store.open(path)
    found = completions(0)
    scores = {metric: np.random.default_rng(1).random(len(found)) for metric in METRICS}
    seconds = []
    sizes = [0]
    for key in ("first", "second", "third"):
        started = time.perf_counter()
        write(store, key, found, scores)
        seconds.append(time.perf_counter() - started)
        sizes.append(path.stat().st_size)
    megabytes = [(b - a) / 1e6 for a, b in pairwise(sizes)]
    benchmark.extra_info |= {"seconds": seconds, "megabytes": megabytes}
    print(f"\nwriting a point: {seconds} s, {megabytes} MB")
    benchmark.pedantic(write, args=(store, "fourth", found, scores), rounds=1)
    assert max(seconds) < 10
    assert max(megabytes) <= 60
