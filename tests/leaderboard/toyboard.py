"""A small synthetic database, written through the Store as the harness writes it: known shapes, hostile texts, gaps."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.schema import (
    Completion,
    Estimate,
    EvaluatorSpec,
    MethodSpec,
    Metric,
    Point,
    Prompt,
    PromptSource,
    Recipe,
    Sampling,
    Share,
    Suite,
    canonical_json,
)
from bench.stats import RatioStatistic, ScoreColumn, ratio_statistic
from bench.store.write import Store
from leaderboard.measure.rank import Series, find_series
from leaderboard.read.board import Board
from methods import registry

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1"> & \u2028 \'quoted\' "'
WORDS = ("great", "terrible")
WORKERS = [
    Share(name=f"worker {i}", node="node 1", device="cpu", n_generated=30, n_judged=60, generating_s=3.0 * i,
          judging_s=1.0, present_s=10.0)
    for i in (1, 2)
]  # fmt: skip
CHECKPOINTS = {"base": "a" * 64, "expert": "b" * 64, "antiexpert": "c" * 64}


def make_suite(name: str = "toy") -> Suite:
    alphas = (-1.0, -0.5, 0.0, 0.5, 1.0)
    return Suite(
        name=name,
        title=f"The {name} suite",
        description="Synthetic numbers with the shape of the paper's.",
        checkpoints={"base": "mini:base", "expert": "mini:expert", "antiexpert": "mini:antiexpert"},
        prompts={s: PromptSource(source=f"mini:{s}") for s in ("neutral", "positive", "negative")},
        sampling=Sampling(samples=3),
        methods=(
            MethodSpec(name="base"),
            MethodSpec(name="expert"),
            MethodSpec(name="antiexpert"),
            MethodSpec(name="g1", params={"alpha": (-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0)}),
            MethodSpec(name="g2", params={"alpha": alphas}),
            MethodSpec(name="dexperts", params={"alpha": alphas}),
            MethodSpec(name="g3", params={"alpha": alphas, "beta": alphas}),
        ),
        evaluators=(EvaluatorSpec(name="sentiment"), EvaluatorSpec(name="perplexity")),
    )


def points_of(suite: Suite) -> list[Point]:
    from bench.suite.points import plan_points

    return plan_points(suite, registry())


PROMPTS = [
    Prompt(set=name, row=row, text=f"{name} prompt {row}: The movie")
    for name, n in (("neutral", 6), ("positive", 3), ("negative", 3))
    for row in range(n)
]


def truth(recipe: Recipe) -> tuple[float, float]:
    """Sentiment and log perplexity of a mixture: rises along the experts' difference; costs grow with its square."""
    c = recipe.coefficients
    push = c.get("expert", 0.0) - c.get("antiexpert", 0.0)
    domain = c.get("expert", 0.0) + c.get("antiexpert", 0.0)
    extra = 0.05 if recipe.space == "logits" else 0.0
    return 1 / (1 + np.exp(-0.9 * push)), 3.0 + 0.15 * push**2 + 0.12 * domain**2 + extra


def add_point(store: Store, suite_id: int, engine: str, position: int, point: Point, *, seed: int = 0,
              judge: str = "judge", environment: int = 1, control: str = "sentiment") -> None:  # fmt: skip
    """Generate and judge one point as the harness would: equal mixtures share their work."""
    mixture_key = canonical_json([engine, point.recipe.model_dump(mode="json")])
    mixture_id = store.mixture(mixture_key, engine, "float32", point.recipe,
                               {name: CHECKPOINTS[name] for name in point.recipe.coefficients})  # fmt: skip
    point_id = store.place(suite_id, engine, position, point, mixture_id)
    generation_id = store.generation_id(mixture_key)
    evaluation_ids = [store.evaluation_id(f"{judge} {mixture_key}")]
    if generation_id is None:
        completions = make_completions(point, seed)
        sampling = Sampling(samples=3).model_dump(mode="json")
        generation_id = store.add_generation(mixture_key, mixture_id, sampling, PROMPTS, completions, 1.0, environment)
    if evaluation_ids == [None]:
        key = f"{judge} {mixture_key}"
        scored = add_scores(
            store,
            key,
            mixture_id,
            generation_id,
            point,
            seed=seed,
            judge=judge,
            environment=environment,
            control=control,
        )
        evaluation_ids = [scored]
    store.link(point_id, generation_id, [e for e in evaluation_ids if e is not None])


def make_completions(point: Point, seed: int) -> list[Completion]:
    texts = [f" was, says {point.label}, fine ({p}, {s})." for p in range(len(PROMPTS)) for s in range(3)]
    texts[1] = HOSTILE
    return [Completion(k // 3, k % 3, text, 9 + k % 5, "stop" if k % 2 else "length") for k, text in enumerate(texts)]


def add_scores(store: Store, key: str, mixture_id: int, generation_id: int, point: Point, *, seed: int = 0,
               judge: str = "judge", environment: int = 1, control: str = "sentiment") -> int:  # fmt: skip
    rng = np.random.default_rng(seed)
    mean, log_ppl = truth(point.recipe)
    prompt_of = np.repeat(np.arange(len(PROMPTS)), 3)
    wobble = rng.normal(0, 0.02, len(PROMPTS))[prompt_of] + rng.normal(0, 0.03, len(prompt_of))
    own = np.random.default_rng([seed, zlib.crc32(canonical_json(point.recipe.model_dump()).encode())])
    wobble = wobble + own.normal(0, 0.01, len(prompt_of))
    sentiment = np.clip(mean + wobble, 0, 1)
    share = SHARES.get(control, f"{control}_share")
    scored = np.arange(len(prompt_of)) != 4  # one completion could not be judged
    tokens = np.full(len(prompt_of), 10.0)
    kept, rebate = np.arange(len(prompt_of)) != 7, 0.2 if point.recipe.space == "logits" else 0.0
    statistics = [
        ratio_statistic(control, prompt_of, sentiment, len(PROMPTS), scored=scored),
        ratio_statistic(
            "perplexity", prompt_of, (log_ppl + wobble) * tokens, len(PROMPTS), weights=tokens, transform="exp"
        ),
        ratio_statistic("acceptability", prompt_of, np.clip(0.8 - 0.05 * (log_ppl - 3) + wobble, 0, 1), len(PROMPTS)),
        ratio_statistic("surprise", prompt_of, wobble + 0.5, len(PROMPTS)),
        ratio_statistic(share, prompt_of, (sentiment > 0.5).astype(float), len(PROMPTS)),
        # As in DExperts: mixing logits is cheaper here, and dearer above; one completion in a generation is left out.
        ratio_statistic("perplexity_dexperts", prompt_of, np.exp(log_ppl + wobble - rebate), len(PROMPTS), scored=kept),
    ]
    estimates = [*all_estimates(statistics), *plain_estimates(point.recipe, mean)]
    column = ScoreColumn([float(s) if ok else None for s, ok in zip(sentiment, scored, strict=True)], {4: "empty text"})
    return store.add_evaluation(
        key, "synthetic", 1, {"judge": "toy"}, mixture_id, generation_id, 0.1, environment,
        metrics=metrics_of(control), scores={control: column}, statistics=statistics, items=PROMPTS,
        estimates=estimates, data=[judge],
    )  # fmt: skip


SHARES = {"sentiment": "fraction_positive"}


def metrics_of(control: str) -> list[Metric]:
    """What the toy's evaluator declares, with what it steers under this name."""
    names = {"sentiment": control, "fraction_positive": SHARES.get(control, f"{control}_share")}
    return [metric.model_copy(update={"name": names.get(metric.name, metric.name)}) for metric in METRICS]


METRICS = [
    Metric(name="sentiment", direction="higher", description="0 P(neg) + 0.5 P(neutral) + 1 P(pos), mean over texts"),
    Metric(name="perplexity", direction="lower"),
    Metric(name="acceptability", direction="higher", unit="probability"),
    Metric(name="fraction_positive"),
    Metric(name="perplexity_dexperts", direction="lower"),
    Metric(name="surprise", description="unknown to the leaderboard; <b>hostile</b> description"),
    Metric(name="distinct_2", direction="higher"),
    Metric(name="kl_to_base", unit="nats"),
    Metric(name="nll_positive", direction="lower", unit="nats"),
    Metric(name="nll_negative", direction="lower", unit="nats"),
    Metric(name="next_token[great]", description="a positive word"),
    Metric(name="next_token[terrible]", description="a negative word"),
    Metric(name="missing"),
]


def all_estimates(statistics: Sequence[RatioStatistic]) -> list[Estimate]:
    found = []
    for statistic in statistics:
        for prompts in (None, "neutral", "positive", "negative"):
            rows = np.array([prompts in (None, p.set) for p in PROMPTS])
            found.append(statistic.estimate(rows, prompts))
    return found


def plain_estimates(recipe: Recipe, mean: float) -> list[Estimate]:
    push = recipe.coefficients.get("expert", 0.0) - recipe.coefficients.get("antiexpert", 0.0)

    def one(metric: str, value: float | None, prompts: str | None = None, reason: str | None = None) -> Estimate:
        return Estimate(metric=metric, prompts=prompts, value=value, n_scored=0 if value is None else 36, n_total=36,
                        reason=reason)  # fmt: skip

    return [
        one("kl_to_base", 0.04 * push**2 * (1.5 if recipe.space == "logits" else 1)),
        one("distinct_2", 0.9 - 0.1 * abs(mean - 0.5)),
        one("distinct_2", 0.91 - 0.1 * abs(mean - 0.5), "neutral"),
        one("nll_positive", 4 - mean),
        one("nll_negative", 3 + mean),
        one("next_token[great]", 0.01 * mean),
        one("next_token[terrible]", 0.01 * (1 - mean)),
        one("missing", None, reason="the judge refused"),
    ]


def fill(store: Store, suite: Suite, engine: str = "transformers", *, seed: int = 0, judge: str = "judge",
         points: Sequence[Point] | None = None, command: str = "lerpbench run toy") -> None:  # fmt: skip
    details: Mapping[str, Any] = {"packages": {"lerpbench": "0.1.0", "torch": "2.12"}, "device": "cpu", "threads": 2,
                                  "processor": "Test CPU", "commit": "abc123", "cores": 2}  # fmt: skip
    environment = store.environment(details, "digest")
    suite_id = store.suite(suite)
    run = store.start_run(suite_id, engine, environment, command)
    for position, point in enumerate(points_of(suite) if points is None else points):
        add_point(
            store,
            suite_id,
            engine,
            position,
            point,
            seed=seed,
            judge=judge,
            environment=environment,
            control=suite.goal[0].control,
        )
    store.put_shares(run, WORKERS)
    store.finish_run(run)


MakeDatabase = Callable[..., Path]


def series_of(board: Board, name: str) -> Series:
    return next(s for s in find_series(board) if s.name == name)
