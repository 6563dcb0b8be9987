"""Trials on several workers are the trials of one process: weights, records, what is kept and what is chosen."""

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from cluster_runs import RayHere

from bench.cluster import trials
from bench.cluster.nodes import Places
from bench.cluster.trials import School
from bench.experts.plan import PlannedExpert, given_checkpoints, plan_experts, training_s
from bench.experts.train import Workshop, finetune, settle
from bench.progress import Advance, Task, silently
from bench.schema import Suite, TrialRecord, UserError
from bench.store.write import Store
from lerpbench import api

SENTENCES = {"good": "The movie was good.\nThe actors are great.", "bad": "The film is bad and long.\nA bad story."}
PLACES = Places(workers=2, cpus=1, gpus=0, threads=1)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, tiny_trio: dict[str, Path]) -> Suite:
    """Two experts of three trials each; the middle rate is the best, so that of one expert two are kept in turn."""
    folder = tmp_path_factory.mktemp("suite")
    for name, text in SENTENCES.items():
        (folder / f"{name}.txt").write_text("\n".join([text] * 3))
    made = {
        name: {part: {"source": str(folder / f"{name}.txt")} for part in ("train", "validation")} for name in SENTENCES
    }
    return api.load({
        "name": "t", "checkpoints": {"base": str(tiny_trio["base"])}, "methods": ["base"], "evaluators": [],
        "finetune": {"learning_rate": [1e-4, 1e-3, 1e-5], "batch_size": 2, "steps": 5, "experts": made},
        "prompts": {"n": {"source": str(folder / "good.txt")}}, "sampling": {"samples": 1, "max_new_tokens": 2},
    })  # fmt: skip


def planned(suite: Suite, cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[PlannedExpert]:
    monkeypatch.setenv("LERPBENCH_CACHE", str(cache))
    return plan_experts(suite, given_checkpoints(suite))


def kept(experts: list[PlannedExpert]) -> list[tuple[Any, ...]]:
    """What matters of each trial; the digest is of its weights' bytes."""
    return [
        (record.key, record.trial, record.validations, record.checkpoint_digest, trial.is_kept)
        for expert in experts
        for trial in expert.trials
        if (record := trial.record) is not None
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, suite: Suite) -> list[tuple[Any, ...]]:
    """The trials of one process with one thread, one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as monkeypatch:
        experts = planned(suite, folder / "cache", monkeypatch)
        store = Store.open(folder / "r.db")
        torch.set_num_threads(1)
        finetune(experts, Workshop("cpu", None, silently, {}), store, store.suite(suite))
        store.close()
    return kept(experts)


def on(
    ray: Any, experts: list[PlannedExpert], suite: Suite, db: Path, task: Task = silently,
    seen: list[School] | None = None,
) -> None:  # fmt: skip
    school = School(ray, experts, None, task, PLACES)
    if seen is not None:
        seen.append(school)
    store = Store.open(db)
    try:
        finetune(experts, Workshop("cpu", None, silently, {}), store, store.suite(suite), school.execute)
    finally:
        store.close()


def test_workers_make_what_one_process_makes(
    alone: list[tuple[Any, ...]], suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [row[-1] for row in alone] == [True, True, False] * 2
    experts = planned(suite, tmp_path / "cache", monkeypatch)
    on(RayHere(), experts, suite, tmp_path / "r.db")
    assert kept(experts) == alone
    with sqlite3.connect(tmp_path / "r.db") as db:
        assert db.execute("SELECT learning_rate FROM finetuning WHERE chosen").fetchall() == [(1e-3,)] * 2


def test_a_killed_worker_changes_nothing(
    ray: Any, alone: list[tuple[Any, ...]], suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 on real Ray when the first trial is done, of one that is at another."""
    seen: list[School] = []
    killed: list[int] = []

    @contextmanager
    def killing(title: str, total: int) -> Iterator[Advance]:
        def advance(n: int) -> None:
            busy = [pid for seat in seen[0].crew.seats if seat.units for pid in seat.pids]
            if busy and not killed:
                killed.append(busy[0])
                os.kill(busy[0], signal.SIGKILL)

        yield advance

    experts = planned(suite, tmp_path / "cache", monkeypatch)
    on(ray, experts, suite, tmp_path / "r.db", killing, seen)
    assert killed and kept(experts) == alone


def test_a_node_with_a_cache_of_its_own_sends_what_is_kept(
    alone: list[tuple[Any, ...]], suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts = planned(suite, tmp_path / "cache", monkeypatch)
    monkeypatch.setattr(trials, "sees", lambda cache: False)
    monkeypatch.setattr(trials, "cache_folder", lambda: tmp_path / "node")
    on(RayHere(), experts, suite, tmp_path / "r.db")
    assert kept(experts) == alone
    assert len(list((tmp_path / "node" / "experts").iterdir())) == 6


def test_a_trial_that_loses_three_workers_is_named_and_the_others_are_kept(
    alone: list[tuple[Any, ...]], suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker at a time; the first three are lost in their first trial, which is the same one."""
    experts = planned(suite, tmp_path / "cache", monkeypatch)
    ray = RayHere(lambda seat, unit: seat < 3 and unit == 1)
    school = School(ray, experts, None, silently, Places(1, cpus=1, gpus=0, threads=1))
    with pytest.raises(UserError, match=r"finetune: good, trial 1: its worker was lost 3 times.*tries again"):
        school.execute(lambda: None)
    assert [row[0] for row in kept(experts)] == [row[0] for row in alone[1:]]
    on(RayHere(), experts, suite, tmp_path / "r.db")
    assert [row[:3] for row in kept(experts)] == [row[:3] for row in alone]


def test_what_is_kept_does_not_depend_on_who_was_first(
    alone: list[tuple[Any, ...]], suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perplexities 3, 5 and 2 in the grid's order: one after the other, the first and the third are kept."""
    (expert, _) = planned(suite, tmp_path / "cache", monkeypatch)
    record = TrialRecord.model_validate(
        {"key": "k", "base_digest": "b", "trial": expert.trials[0].trial, "n_train": 1, "n_validation": 1, "n_cut": 0,
         "validations": ((0, 9.0),), "duration_s": 2.0, "checkpoint_digest": "d", "environment": {}, "created_at": ""}
    )  # fmt: skip
    for trial, found in zip(expert.trials, (3.0, 5.0, 2.0), strict=True):
        trial.model.mkdir(parents=True)
        trial.record_path.write_text(record.model_copy(update={"validations": ((5, found),)}).model_dump_json())
    settle(expert, {trial.key for trial in expert.trials})
    assert [trial.is_kept for trial in expert.trials] == [True, False, True]
    assert [trial.record and trial.record.checkpoint_digest for trial in expert.trials] == ["d", None, "d"]


def test_several_trials_at_once_take_as_long_as_their_rounds(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of six trials took 2 s: five are left, which on two workers are three rounds of 2 s."""
    experts = planned(suite, tmp_path / "cache", monkeypatch)
    assert training_s(experts, 2) is None
    first = experts[0].trials[0]
    first.folder.mkdir(parents=True)
    record = TrialRecord.model_validate(
        {"key": "k", "base_digest": "b", "trial": first.trial, "n_train": 1, "n_validation": 1, "n_cut": 0,
         "validations": ((0, 9.0),), "duration_s": 2.0, "checkpoint_digest": None, "environment": {}, "created_at": ""}
    )  # fmt: skip
    first.record_path.write_text(record.model_dump_json())
    assert (training_s(experts, 1), training_s(experts, 2)) == (pytest.approx(10.0), pytest.approx(6.0))
