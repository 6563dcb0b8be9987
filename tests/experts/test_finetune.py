"""Experts from a base: grids, keys, the leak guard, resumption, and a sweep that rises."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import evaluators
import lerpbench as lb
from bench import engines
from bench.cli.running import to_be_made
from bench.experts import plan as planned
from bench.experts import train as training
from bench.experts.leaks import normalised, require_no_leak
from bench.experts.plan import PlannedExpert, given_checkpoints, learned, plan_experts, require_made, training_s
from bench.experts.train import Workshop, finetune
from bench.progress import Advance, silent
from bench.schema import FinetuneSpec, Prompt, Recipe, Suite, UserError
from bench.store.write import Store
from methods.base import weights as weights_recipe
from tools import reviews

SENTENCES = {
    "good": ["The movie was good.", "The actors are great.", "A story of good actors."] * 3,
    "bad": ["The film is bad and long.", "The movie was bad.", "A long story of a bad film."] * 3,
}
SUITE = """
name: t
checkpoints: {{base: {base}}}
finetune:
  learning_rate: {rates}
  batch_size: 4
  steps: {steps}
  seed: 3
  {more}
  experts:
    expert: {{train: {{source: ./good.txt}}, validation: {{source: ./good_too.txt}}}}
    antiexpert: {{train: {{source: ./bad.txt}}, validation: {{source: ./bad_too.txt}}}}
prompts: {{n: {{source: ./prompts.txt}}}}
sampling: {{samples: 2, max_new_tokens: 4}}
methods: [{{g1: {{alpha: [0, 1]}}}}]
evaluators: [{{nll: {{sets: {{s: {{source: ./test.txt}}}}}}}}]
"""


@contextmanager
def no_bar(title: str, total: int) -> Iterator[Advance]:
    yield silent


WORKSHOP = Workshop(device="cpu", device_batch_size=None, task=no_bar, environment={"cores": 2})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a suite's files lie, with a cache of its own."""
    monkeypatch.setenv("LERPBENCH_CACHE", str(tmp_path / "cache"))
    for name, sentences in SENTENCES.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(sentences))
        (tmp_path / f"{name}_too.txt").write_text(f"The story is {name}.")
    (tmp_path / "prompts.txt").write_text("The movie")
    (tmp_path / "test.txt").write_text("Never seen before.")
    return tmp_path


def written(folder: Path, trio: dict[str, Path], rates: str = "[1e-3]", steps: str = "6", more: str = "") -> Path:
    path = folder / "t.yaml"
    path.write_text(SUITE.format(base=trio["base"], rates=rates, steps=steps, more=more))
    return path


def load(path: Path) -> Suite:
    return lb.load(path)


def plans(path: Path) -> list[PlannedExpert]:
    suite = load(path)
    return plan_experts(suite, given_checkpoints(suite))


def make(path: Path, db: Path, workshop: Workshop = WORKSHOP) -> list[PlannedExpert]:
    found, store = plans(path), Store.open(db)
    finetune(found, workshop, store, store.suite(load(path)))
    store.close()
    return found


def weights(expert: PlannedExpert) -> dict[str, torch.Tensor]:
    best = expert.best()
    assert best is not None
    return load_file(best.model / "model.safetensors")


# ---------------------------------------------------------------------------------------------- what a suite may say


def test_the_papers_settings_are_the_default() -> None:
    data = {"source": "x"}
    spec = FinetuneSpec.model_validate({"experts": {"expert": {"train": data, "validation": data}}})
    assert [(t.learning_rate, t.batch_size, t.steps) for t in spec.trials] == [(1e-6, 64, 1000)]


def test_a_grid_is_every_combination_once(folder: Path, tiny_trio: dict[str, Path]) -> None:
    found = load(written(folder, tiny_trio, rates="[1e-3, 1e-4, 1e-3]", steps="[2, 3]")).finetune
    assert found is not None
    assert [(t.learning_rate, t.steps) for t in found.trials] == [(1e-3, 2), (1e-3, 3), (1e-4, 2), (1e-4, 3)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "base: bse", r"finetune\.base: no checkpoint 'bse'; did you mean 'base'"),
        ("    expert:", "    base:", r"finetune\.experts\.base: checkpoints gives 'base' too"),
        ("seed: 3", "sead: 3", r"finetune\.sead: unknown key 'sead'; did you mean 'seed'"),
        ("seed: 3", "device_batch_size: 3", r"batch_size 4 is not a multiple of device_batch_size 3"),
        ("[1e-3]", "[0]", r"finetune\.learning_rate\.0: input should be greater than 0"),
        ("validation:", "test:", r"finetune\.experts\.expert\.validation: missing"),
    ],
)
def test_a_mistake_is_named(folder: Path, tiny_trio: dict[str, Path], old: str, new: str, message: str) -> None:
    path = written(folder, tiny_trio)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load(path)


def test_a_key_follows_bytes_texts_and_settings(folder: Path, tiny_trio: dict[str, Path]) -> None:
    path = written(folder, tiny_trio)
    expert, antiexpert = plans(path)
    key = expert.trials[0].key
    (trial,) = expert.settings
    texts = [*expert.train[:-1], Prompt(set="s", row=0, text="another")]
    others = [
        antiexpert,
        replace(expert, base=expert.base.model_copy(update={"digest": "x"})),
        replace(expert, train=texts),
        replace(expert, validation=texts),
        replace(expert, settings=[trial.model_copy(update={"precision": "bfloat16"})]),
        replace(expert, settings=[trial.model_copy(update={"seed": 4})]),
    ]
    assert len({key, *(other.trials[0].key for other in others)}) == 7
    (folder / "moved.txt").write_text((folder / "good.txt").read_text())
    path.write_text(
        path.read_text().replace("./good.txt", "./moved.txt").replace("seed: 3", "device_batch_size: 2\n  seed: 3")
    )
    assert plans(path)[0].trials[0].key == key  # neither the file's name nor the rows held at a time


# ---------------------------------------------------------------------------------------------- the leak guard


@pytest.mark.parametrize(
    "text",
    [
        "It's n't \"good\", really (or so).",
        "it 's n't `` good '' , really -LRB- or so -RRB- .",
        "\uff29\uff34'S N'T GOOD REALLY OR SO",
    ],
)
def test_spellings_of_a_sentence_are_one(text: str) -> None:
    assert normalised(text) == "itsntgoodreallyorso"


def test_a_planted_leak_is_named(folder: Path, tiny_trio: dict[str, Path]) -> None:
    """Row 3 of the test file is row 1 of the expert's training file, row 5 the antiexpert's validation sentence."""
    path = written(folder, tiny_trio)
    found = plans(path)
    texts = ["one", "two", "!", "the actors are GREAT", "three", "The story is bad !"]
    held_out = [Prompt(set="s", row=row, text=text) for row, text in enumerate(texts)]
    with pytest.raises(UserError) as caught:
        require_no_leak(learned(found), {"nll": held_out})
    message = str(caught.value)
    assert message.startswith("2 evaluation sentences among those that experts learn from: ")
    assert "nll s row 3 'the actors are GREAT' (finetune.experts.expert.train row 1)" in message
    assert "nll s row 5 'The story is bad !' (finetune.experts.antiexpert.validation row 0)" in message
    require_no_leak(learned(found), {"nll": held_out[:3]})


def test_excluded_sentences_are_left_out(folder: Path, tiny_trio: dict[str, Path]) -> None:
    (folder / "test.txt").write_text("the actors are great")
    path = written(folder, tiny_trio, more="exclude: [{source: ./test.txt}]")
    assert [s.row for s in plans(path)[0].train] == [0, 2, 3, 5, 6, 8]  # of nine, rows 1, 4 and 7 say it
    (folder / "test.txt").write_text("The story is good")
    with pytest.raises(UserError, match=r"expert\.validation: finetune\.exclude leaves none of 1 sentences"):
        plans(path)


# ---------------------------------------------------------------------------------------------- training


def test_texts_lie_between_ends_and_are_cut(tiny_trio: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_trio["base"])
    ids = tokenizer("The movie was good.")["input_ids"]
    (short, long), cut = training.encode(tokenizer, ["The movie was good.", "The movie was good. " * 9], 32)
    assert short.tolist() == [0, *ids, 0] and len(long) == 32 and cut == 1
    batch = training.pad([torch.tensor([0, 5, 0]), torch.tensor([0, 0])])
    assert batch["labels"].tolist() == [[0, 5, 0], [0, 0, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_perplexity_is_over_tokens_however_they_are_batched(tiny_trio: dict[str, Path]) -> None:
    """exp of the mean of -log p of every token after a row's first, computed row by row without padding."""
    model = AutoModelForCausalLM.from_pretrained(tiny_trio["base"], dtype=torch.float32)
    rows = [torch.tensor([0, 7, 9, 4, 0]), torch.tensor([0, 8, 0])]
    with torch.no_grad():
        nlls = [-model(row[None]).logits[0, :-1].log_softmax(-1).gather(1, row[1:, None]).squeeze(1) for row in rows]
    expected = float(torch.cat(nlls).mean().exp())
    for batch_size in (1, 2):
        assert training.perplexity(model, rows, batch_size) == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    assert training.perplexity(model, rows, 2) is None


def test_accumulated_gradients_are_the_batchs(
    folder: Path, tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 4 at once or as 2 + 2 (the last of each epoch of 9 has one row): the same weights but for rounding."""
    path = written(folder, tiny_trio, steps="4")
    whole = weights(make(path, folder / "a.db")[0])
    monkeypatch.setenv("LERPBENCH_CACHE", str(folder / "other"))
    halves = weights(make(path, folder / "b.db", replace(WORKSHOP, device_batch_size=2))[0])
    base = load_file(tiny_trio["base"] / "model.safetensors")
    name = "transformer.h.0.mlp.c_fc.weight"
    moved = (whole[name] - base[name]).norm()
    assert (whole[name] - halves[name]).norm() < 0.01 * moved


def test_bfloat16_computes_in_half_and_keeps_whole_weights(
    folder: Path, tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(folder, tiny_trio, steps="2")
    exact = weights(make(path, folder / "a.db")[0])
    path = written(folder, tiny_trio, steps="2", more="precision: bfloat16")
    rounded = weights(make(path, folder / "b.db")[0])
    assert {tensor.dtype for tensor in rounded.values()} == {torch.float32}
    name = "transformer.h.0.mlp.c_fc.weight"
    assert 0 < (exact[name] - rounded[name]).abs().max() < 1e-2


def test_the_best_of_the_grid_is_the_expert_and_all_is_on_record(folder: Path, tiny_trio: dict[str, Path]) -> None:
    path = written(folder, tiny_trio, rates="[1e-7, 3e-3, 1e-5]", steps="20")
    with pytest.raises(UserError, match=r"expert is not fine-tuned yet \(0 of 3 trials done\)"):
        require_made(load(path), plans(path))
    found = make(path, folder / "r.db")
    with sqlite3.connect(folder / "r.db") as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        rows = connection.execute(
            "SELECT checkpoint, learning_rate, chosen, validation_perplexity FROM finetuning ORDER BY rowid"
        ).fetchall()
        curves = connection.execute("SELECT trial_id, step FROM trial_validations").fetchall()
        digests = dict(connection.execute("SELECT learning_rate, checkpoint_digest FROM trials").fetchall())
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert {(name, rate) for name, rate, chosen, _ in rows if chosen} == {("expert", 3e-3), ("antiexpert", 3e-3)}
    best = min(value for name, _, _, value in rows if name == "expert")
    assert best == next(value for name, rate, _, value in rows if name == "expert" and rate == 3e-3)
    assert {step for trial, step in curves if trial == 1} == set(range(0, 21, 2))  # ten times, and the base itself
    assert digests[1e-5] is None  # worse than the one before it: no weights are kept
    require_made(load(path), found)
    assert [e.name for e in found] == ["expert", "antiexpert"] and digests[3e-3] in {e.checkpoint.digest for e in found}


def test_a_finished_trial_is_never_repeated(
    folder: Path, tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(written(folder, tiny_trio, steps="2"), folder / "r.db")
    trials: list[int] = []
    train = training.train

    def counted(expert: Any, trial: Any, *rest: Any, **more: Any) -> None:
        trials.append(trial.trial.steps)
        train(expert, trial, *rest, **more)

    monkeypatch.setattr(training, "train", counted)
    make(written(folder, tiny_trio, steps="2"), folder / "another.db")  # the cache remembers, not the database
    assert trials == []
    wider = make(written(folder, tiny_trio, steps="[2, 3]"), folder / "r.db")
    assert trials == [3, 3]
    with sqlite3.connect(folder / "another.db") as connection:
        assert connection.execute("SELECT count(*), sum(chosen) FROM finetuning").fetchone() == (2, 2)
    # A better trial whose weights were not kept, or were deleted, is trained again.
    best = wider[0].best()
    assert best is not None
    before = weights(wider[0])
    best.model.rename(folder / "away")
    make(written(folder, tiny_trio, steps="[2, 3]"), folder / "r.db")
    assert len(trials) == 3
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(wider[0]).items())


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("torn", [False, True])
def test_a_trial_that_was_cut_off_goes_on_to_the_same_weights(
    folder: Path, tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    """Stopped in step 5 of 7, with a checkpoint at each step; once with the newest checkpoint written by half."""
    path = written(folder, tiny_trio, steps="7")
    whole = make(path, folder / "a.db")
    curve = whole[0].records()[0].validations
    expected = weights(whole[0])
    monkeypatch.setenv("LERPBENCH_CACHE", str(folder / "other"))
    steps: list[int] = []

    @contextmanager
    def failing(title: str, total: int) -> Iterator[Advance]:
        def advance(n: int) -> None:
            steps.append(n)
            if sum(steps) == 5:
                raise InterruptionError

        yield advance

    eager = replace(WORKSHOP, task=failing, checkpoint_every_s=0)
    with pytest.raises(InterruptionError):
        make(path, folder / "b.db", eager)
    (expert, _) = plans(path)
    (left,) = (expert.trials[0].folder / "training").iterdir()
    assert left.name == "checkpoint-4" and expert.records() == []
    if torn:
        (left / "trainer_state.json").write_text("{")
    steps.clear()
    steps.append(-100)  # and now without failing
    resumed = make(path, folder / "b.db", eager)
    assert steps[1] == (0 if torn else 4)
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights(resumed[0]).items())
    assert resumed[0].records()[0].validations == curve
    assert not (expert.trials[0].folder / "training").exists()


def test_a_lora_expert_is_its_base_with_the_adapter_merged(folder: Path, tiny_trio: dict[str, Path]) -> None:
    path = written(folder, tiny_trio, more="lora: {r: 2}")
    expert = make(path, folder / "r.db")[0]
    best = expert.best()
    assert best is not None and best.record is not None
    base, found = load_file(tiny_trio["base"] / "model.safetensors"), weights(expert)
    tensors = load_file(best.adapter / "adapter_model.safetensors")
    for name, tensor in found.items():
        module = "base_model.model." + name.removesuffix(".weight")
        delta = torch.zeros(())
        if f"{module}.lora_A.weight" in tensors:  # alpha is twice r, so the scale is 2; GPT-2's layers are transposed
            delta = 2 * (tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]).t()
            assert not torch.equal(tensor, base[name])
        torch.testing.assert_close(tensor, base[name] + delta, atol=1e-6, rtol=0)
    after = best.record.perplexity
    assert after is not None and best.record.validations[0][1] is not None and after < best.record.validations[0][1]
    assert plans(written(folder, tiny_trio))[0].trials[0].key != best.key
    whole = make(written(folder, tiny_trio, steps="1"), folder / "r.db")[0].name
    with sqlite3.connect(folder / "r.db") as connection:
        rows = "SELECT lora_r, lora_alpha FROM trials ORDER BY id"
        assert connection.execute(rows).fetchall() == [(2, 4.0), (2, 4.0), (None, None), (None, None)]
        assert connection.execute("SELECT lora_r FROM finetuning WHERE checkpoint = ?", [whole]).fetchall() == [(None,)]


def test_two_processes_do_not_train_one_trial(folder: Path, tiny_trio: dict[str, Path]) -> None:
    path = written(folder, tiny_trio)
    with (
        training.claimed(plans(path)[0].trials[0].folder),
        pytest.raises(UserError, match="another process is training here"),
    ):
        make(path, folder / "r.db")


# ---------------------------------------------------------------------------------------------- the command


def test_killed_and_called_again_then_run(folder: Path, tiny_trio: dict[str, Path]) -> None:
    """kill -9 after the first finished trial: it is not repeated, and the suite runs on the experts as it is."""
    path, db = written(folder, tiny_trio, rates="[1e-3, 1e-4]", steps="20"), folder / "r.db"
    with pytest.raises(UserError, match=r"not fine-tuned yet \(0 of 2 trials done\); `lerpbench finetune` makes it"):
        lb.prepare(path, engine="transformers")
    calling = [sys.executable, "-m", "bench.cli", "finetune", str(path), "--db", str(db)]
    killed = subprocess.Popen(calling, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    records = list(plans(path)[0].trials)
    deadline = time.monotonic() + 300
    while not records[0].record_path.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it ended before it could be killed"
    first = records[0].record_path.read_bytes()
    done = subprocess.run(calling, capture_output=True, text=True, check=True, timeout=300)
    assert "trial 1 of 2" not in done.stderr.partition("antiexpert")[0] and records[0].record_path.read_bytes() == first
    assert done.stdout.count("chosen") == 2
    lb.run(path, db, engine="transformers")
    with sqlite3.connect(db) as connection:
        members = connection.execute("SELECT checkpoints FROM mixtures").fetchall()
        digests = connection.execute(
            "SELECT checkpoint_digest FROM expert_trials JOIN trials ON trials.id = trial_id WHERE chosen"
        ).fetchall()
    assert all(any(digest in row[0] for row in members) for (digest,) in digests)


def test_a_run_makes_the_experts_that_are_missing(
    folder: Path, tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command from a base to results; a plan says so before, and a later run finds them."""
    path, titles = written(folder, tiny_trio, rates="[1e-3, 1e-4]"), []

    @contextmanager
    def noted(title: str, total: int) -> Iterator[Advance]:
        titles.append(title)
        yield silent

    before = lb.plan(path, folder / "r.db", engine="transformers")
    assert [e.name for e in before.unmade] == ["expert", "antiexpert"] and before.training_s is None
    assert before.mixtures == 2 and before.to_do == 4 and before.memory is not None  # as if they were there
    values = sum(tensor.numel() for tensor in load_file(tiny_trio["base"] / "model.safetensors").values())
    assert before.training_bytes == 4 * 4 * values  # weights, gradients and two moments in float32
    (told,) = to_be_made(before)
    assert told.startswith("experts that the run makes first: expert (0 of 2 trials done), antiexpert (0 of 2 trials ")
    assert not (folder / "cache").exists() and not (folder / "r.db").exists()
    outcome = lb.run(path, folder / "r.db", engine="transformers", task=noted)
    assert [title.partition(" (")[0] for title in titles[:4]] == [
        f"Fine-tuning {name}, trial {i} of 2" for name in ("expert", "antiexpert") for i in (1, 2)
    ]
    assert {row["method"] for row in outcome.rows} == {"g1"} and not outcome.problems
    titles.clear()
    monkeypatch.setattr(training, "train", None)  # all is in the cache
    again = lb.run(path, folder / "another.db", engine="transformers", task=noted, limit_prompts=1)
    assert titles and not any("Fine-tuning" in title for title in titles)
    assert again.suite == "t-1prompts"
    with sqlite3.connect(folder / "another.db") as connection:  # and how they were made stands beside the results
        made = set(connection.execute("SELECT suite, checkpoint FROM finetuning").fetchall())
    assert made == {("t-1prompts", "expert"), ("t-1prompts", "antiexpert")}
    after = lb.plan(path, folder / "r.db", engine="transformers")
    assert not after.unmade and to_be_made(after) == [] and after.to_do == 0


def test_what_a_run_cannot_do_is_said_before_it_trains(
    folder: Path, tiny_trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", None)
    path = written(folder, tiny_trio)
    path.write_text(path.read_text().replace("max_new_tokens: 4", "max_new_tokens: 64"))
    with pytest.raises(UserError, match="it exceeds the model's context of 64"):
        lb.run(path, folder / "r.db", engine="transformers")


def test_the_time_of_training_by_hand(folder: Path, tiny_trio: dict[str, Path]) -> None:
    """One trial of 2 x 4 sentences in d seconds is done; left are 3 x 4, and the other expert's 5 x 4: 4 d."""
    path = written(folder, tiny_trio, steps="[2, 3]")
    expert, _ = plans(path)
    assert training_s([expert]) is None
    training.train(expert, expert.trials[0], WORKSHOP, "one")
    (record,) = expert.records()
    assert training_s(plans(path)) == pytest.approx(record.duration_s * (3 + 5) / 2)


def test_a_suite_without_the_section_is_told_so(tiny_suite: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="suite tiny has no finetune section"):
        lb.finetune(tiny_suite, tmp_path / "r.db")


# ---------------------------------------------------------------------------------------------- what it is for


def test_between_the_experts_the_attribute_rises_with_alpha(folder: Path, tiny_trio: dict[str, Path]) -> None:
    """In reduced form: log p(good sentence) - log p(bad sentence) rises along g1, through what the base says."""
    path = written(folder, tiny_trio, steps="30")
    suite = load(path)
    checkpoints = given_checkpoints(suite) | {e.name: e.checkpoint for e in make(path, folder / "r.db")}
    engine = engines.engine_class("transformers")(checkpoints, "float32", "cpu")

    def preference(recipe: Recipe) -> float:
        good, bad = engine.serve(recipe).token_logprobs(["The movie was good.", "The movie was bad."])
        return float(good.sum() - bad.sum())

    g1 = [weights_recipe(expert=a, antiexpert=1 - a) for a in (-0.5, 0, 0.25, 0.5, 0.75, 1, 1.5)]
    preferences = [preference(recipe) for recipe in g1]
    assert preferences == sorted(preferences)
    assert preferences[1] < preference(weights_recipe(base=1)) < preferences[-2]


def test_the_packaged_example_does_not_leak() -> None:
    suite = lb.load("mini-finetune")
    nll = evaluators.registry().create("nll", {})
    require_no_leak(learned(plan_experts(suite, given_checkpoints(suite))), {"nll": nll.held_out()})


def test_the_packaged_sentences_are_what_the_script_writes() -> None:
    for split, rows in reviews.splits().items():
        found = planned.load_set("s", planned.PromptSource(source=f"mini:reviews/{split}"))
        assert [sentence.text for sentence in found] == [row["text"] for row in rows]
        assert len({normalised(sentence.text) for sentence in found}) == 2 * reviews.SIZES[split]
