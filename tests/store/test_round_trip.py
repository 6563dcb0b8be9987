"""What is written is read back, whatever the texts and numbers are."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.schema import Completion, Estimate, Metric, Point, Prompt, PromptSource, Recipe, Suite
from bench.stats import ScoreColumn, ratio_statistic
from bench.store.read import Reader
from bench.store.write import Store

texts = st.text(st.characters(codec="utf-8"), max_size=12)
finite = st.floats(-1e6, 1e6, width=32)
RECIPE = Recipe(space="weights", coefficients={"base": 1})


@settings(max_examples=40, deadline=None)
@given(
    prompts=st.lists(st.tuples(st.sampled_from(["a", "b", "="]), texts.filter(bool)), min_size=1, max_size=4),
    samples=st.integers(1, 3),
    data=st.data(),
)
def test_what_is_written_is_read_back(prompts: list[tuple[str, str]], samples: int, data: st.DataObject) -> None:
    asked = [Prompt(set=name, row=row, text=text) for row, (name, text) in enumerate(prompts)]
    sets = [prompt.set for prompt in asked]
    asked.sort(key=lambda prompt: sets.index(prompt.set))  # a set's prompts stand together
    written = [
        Completion(i, s, data.draw(texts), data.draw(st.integers(0, 9)), data.draw(st.sampled_from(["stop", "length"])))
        for i in range(len(asked))
        for s in range(samples)
    ]
    scores = [data.draw(st.none() | finite) for _ in written]
    owner = np.array([c.prompt for c in written])
    scored = np.array([score is not None for score in scores])
    numbers = np.array([score or 0.0 for score in scores])
    sums = ratio_statistic("m", owner, numbers, len(asked), scored=scored)
    estimate = Estimate(metric="m", prompts=None, value=data.draw(finite), n_scored=1, n_total=2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "r.db"
        store = Store.open(path)
        suite = Suite(name="s", checkpoints={"base": "x"}, prompts={"a": PromptSource(source="x")}, methods=())
        environment, suite_id = store.environment({"cores": 2}, "d"), store.suite(suite)
        mixture = store.mixture("m", "e", "float32", RECIPE, {"base": "b"})
        point = store.place(suite_id, "e", 0, Point(method="base", params={}, recipe=RECIPE), mixture)
        generation = store.add_generation("g", mixture, {}, asked, written, 1.0, environment)
        reasons = {i: "none" for i, score in enumerate(scores) if score is None}
        evaluation = store.add_evaluation(
            "e", "x", 1, {}, mixture, generation, 0.1, environment, metrics=[Metric(name="m")],
            scores={"m": ScoreColumn(scores, reasons)}, statistics=[sums], items=asked, estimates=[estimate],
        )  # fmt: skip
        store.link(point, generation, [evaluation])
        store.close()
        reader = Reader.open(path)
        assert reader.generated(generation) == (asked, written)
        assert [found for found, _ in reader.estimates(evaluation)] == [estimate]
        assert [row.value for row in reader.scores(evaluation)] == [
            None if score is None else float(f"{score:.9g}") for score in scores
        ]
        assert sorted(row.numerator for row in reader.statistics(evaluation)) == sorted(sums.numerators.tolist())
        assert not reader.damages()
        reader.close()
