"""Experts from a base, as in the paper's appendix A.1: a grid of trials each, the best by validation perplexity kept.

Causal language modelling with transformers' Trainer: AdamW, learning rate falling linearly to zero.  A text is
`<end> text <end>`; every token after the first is a target.  A finished trial is never repeated; one that was cut off
goes on from its last Trainer checkpoint, with the same batches and weights as if nothing had happened.
"""

import fcntl
import gc
import json
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bench.experts.adapters import kept_whole, merged, read_adapter, replace_folder, with_new_adapter
from bench.experts.plan import PlannedExpert, PlannedTrial, record
from bench.progress import Advance, Task
from bench.schema import TrialRecord, UserError
from bench.store.write import Store
from bench.suite.architecture import architecture
from bench.suite.checkpoints import digest
from bench.suite.loading import load_model, load_tokenizer

Told = Callable[[], None]  # whenever a trial is finished
VALIDATIONS = 10  # in the course of a trial
CHECKPOINT_EVERY_S = 120.0  # what a killed trial loses at most, apart from a step
IGNORED = -100  # the label of padding


@dataclass(frozen=True)
class Workshop:
    """What training needs beside the data: the device, the rows it holds at a time, a progress bar, who is asking."""

    device: str
    device_batch_size: int | None
    task: Task
    environment: Mapping[str, Any]
    checkpoint_every_s: float = CHECKPOINT_EVERY_S


def finetune(
    experts: Sequence[PlannedExpert], workshop: Workshop, store: Store, suite_id: int,
    elsewhere: Callable[[Told], None] | None = None,
) -> None:  # fmt: skip
    """Train what is not trained yet; every trial is in the store as soon as it is finished.  Raises UserError.

    `elsewhere` trains in other processes, before this one looks what is left, and tells of each finished trial.
    """
    record(experts, store, suite_id)
    if elsewhere is not None:
        elsewhere(lambda: record(experts, store, suite_id))
    for expert in experts:
        for i, trial in enumerate(expert.trials):
            if trial.record is None:
                train(expert, trial, workshop, f"{expert.name}, trial {i + 1} of {len(expert.trials)}")
                record(experts, store, suite_id)
        choose(expert, workshop)
        record(experts, store, suite_id)
    if workshop.device == "cuda":  # an engine in this process, or a worker's, may want all of it
        gc.collect()
        torch.cuda.empty_cache()


def settle(expert: PlannedExpert, trained: Collection[str]) -> None:
    """Of trials that were trained side by side, keep the weights that one after the other would have been kept.

    `trained`: their keys.
    """
    least = math.inf
    for trial in expert.trials:
        finished = trial.record
        perplexity = None if finished is None else finished.perplexity
        keep = perplexity is not None and perplexity <= least
        least = min(least, math.inf if perplexity is None else perplexity)
        if finished is not None and trial.key in trained and not keep:
            put_record(trial, finished.model_copy(update={"checkpoint_digest": None}))
            for folder in (trial.model, trial.adapter):
                shutil.rmtree(folder, ignore_errors=True)


def choose(expert: PlannedExpert, workshop: Workshop) -> PlannedTrial:
    """The best trial with its weights, trained again where another grid that holds it had better ones."""
    while (best := expert.best()) is not None:
        if best.is_kept:
            return best
        best.record_path.unlink()
        train(expert, best, workshop, f"{expert.name}, the best trial again", keep=True)
    raise UserError(
        f"finetune.experts.{expert.name}: no trial ended with a finite perplexity; try lower learning rates"
    )


def train(expert: PlannedExpert, trial: PlannedTrial, workshop: Workshop, title: str, *, keep: bool = False) -> None:
    """Train one trial to its end and record it; its weights are kept if it is the best of its grid so far."""
    with claimed(trial.folder), kept_whole(trial.folder):
        state, tokenizer, model, n_cut = _fit(expert, trial, workshop, title)
        validations = tuple((e["step"], e["perplexity"]) for e in state.log_history if "perplexity" in e)
        perplexity = validations[-1][1]
        rivals = [r.perplexity for r in expert.records() if r.perplexity is not None]
        keep = keep or (perplexity is not None and perplexity <= min(rivals, default=math.inf))
        if keep:
            if trial.trial.lora is not None:
                replace_folder(trial.adapter, model.save_pretrained)
                model = merged(expert.base, read_adapter(trial.adapter, str(trial.adapter)))
            replace_folder(trial.model, lambda folder: [part.save_pretrained(folder) for part in (model, tokenizer)])
        finished = TrialRecord(
            key=trial.key,
            base_digest=expert.base.digest,
            trial=trial.trial,
            n_train=len(expert.train),
            n_validation=len(expert.validation),
            n_cut=n_cut,
            validations=validations,
            duration_s=state.log_history[-1]["elapsed_s"],
            checkpoint_digest=digest(trial.model) if keep else None,
            environment=dict(workshop.environment),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        put_record(trial, finished)
        shutil.rmtree(trial.folder / "training", ignore_errors=True)


def put_record(trial: PlannedTrial, finished: TrialRecord) -> None:
    """From now on the trial is finished."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    partial = trial.record_path.with_suffix(".partial")
    partial.write_text(finished.model_dump_json(indent=1), encoding="utf-8")
    partial.replace(trial.record_path)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes off a trial; the claim falls with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); set LERPBENCH_CACHE") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another process is training here; wait until it is done") from error
        yield


# ---------------------------------------------------------------------------------------------- one trial


def _fit(expert: PlannedExpert, trial: PlannedTrial, workshop: Workshop, title: str) -> tuple[Any, Any, Any, int]:
    """Run the Trainer.  Returns its state, the tokenizer, the model, and how many texts were cut."""
    tokenizer = load_tokenizer(expert.base)
    model = load_model(AutoModelForCausalLM, expert.base, dtype=torch.float32)
    context = architecture(expert.base).context or 2**20
    rows, cut = encode(tokenizer, [sentence.text for sentence in expert.train], context)
    validation, cut_too = encode(tokenizer, [sentence.text for sentence in expert.validation], context)
    settings = trial.trial
    if settings.lora is not None:
        model = with_new_adapter(model, settings.lora, settings.seed)
    on_device = min(settings.batch_size, workshop.device_batch_size or settings.batch_size)
    arguments = TrainingArguments(
        output_dir=str(trial.folder / "training"),
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        per_device_train_batch_size=on_device,
        gradient_accumulation_steps=settings.batch_size // on_device,
        bf16=settings.precision == "bfloat16",
        seed=settings.seed,
        use_cpu=workshop.device == "cpu",
        save_strategy="no",  # `Watch` says when
        save_total_limit=1,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=workshop.device == "cuda",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs would each take a batch, and the batch size be another
    with workshop.task(f"Fine-tuning {title} ({describe(trial)})", settings.steps) as advance:
        watch = Watch(lambda: perplexity(model, validation, on_device), workshop.checkpoint_every_s, advance)
        trainer = Trainer(
            model=model, args=arguments, data_collator=pad, train_dataset=rows, callbacks=[watch]
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(trial.folder / "training"))
    return trainer.state, tokenizer, model, cut + cut_too


def describe(trial: PlannedTrial) -> str:
    t = trial.trial
    return f"learning rate {t.learning_rate:g}, batch {t.batch_size}, {t.steps} steps"


class Watch(TrainerCallback):  # type: ignore[misc]
    """Validates ten times and at both ends, saves now and then, moves the bar.

    What it finds goes into the Trainer's log, which the Trainer's checkpoints hold: so it outlives the process.
    """

    def __init__(self, validate: Callable[[], float | None], save_every_s: float, advance: Advance) -> None:
        self.validate = validate
        self.save_every_s = save_every_s
        self.advance = advance

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        before = state.log_history[-1]["elapsed_s"] if state.log_history else 0.0
        self.started = self.saved = time.perf_counter()
        self.started -= before
        self.advance(state.global_step)
        if state.global_step == 0:
            self._log(state, perplexity=self.validate())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, last = state.global_step, state.max_steps
        self.advance(1)
        if step == last or step % math.ceil(last / VALIDATIONS) == 0:
            self._log(state, perplexity=self.validate())
        if step < last and time.perf_counter() - self.saved >= self.save_every_s:
            self._log(state)
            control.should_save = True
            self.saved = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._log(state)  # the Trainer's own last entry has no time of ours

    def _log(self, state: Any, **found: float | None) -> None:
        state.log_history.append({"step": state.global_step, "elapsed_s": time.perf_counter() - self.started, **found})


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; the Trainer writes its state last."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((str(path) for path in found if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


# ---------------------------------------------------------------------------------------------- texts and their loss


def encode(tokenizer: Any, texts: Sequence[str], context: int) -> tuple[list[Tensor], int]:
    """`<end> text <end>` for each text, cut to `context` tokens.  Returns (T,) int64 each, and how many were cut."""
    end = tokenizer.eos_token_id
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    rows = [torch.tensor([end, *ids, end]) for ids in encoded]
    return [row[:context] for row in rows], sum(len(row) > context for row in rows)


def pad(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """A batch: ids, mask and labels (B, T) int64; the model shifts the labels itself."""
    labels = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=IGNORED)
    mask = labels != IGNORED
    return {"input_ids": labels.clamp(min=0), "attention_mask": mask.long(), "labels": labels}


@torch.no_grad()
def perplexity(model: Any, rows: Sequence[Tensor], batch_size: int) -> float | None:
    """exp of the mean NLL of all tokens but each row's first; None where it is not finite.

    The mean is over tokens, not over batches, so it does not depend on how rows are batched.
    """
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = {name: part.to(model.device) for name, part in pad(rows[start : start + batch_size]).items()}
        targets = batch.pop("labels")[:, 1:]  # (B, T - 1)
        logits = model(**batch).logits[:, :-1].float()  # (B, T - 1, V)
        total += float(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"))
        count += int((targets != IGNORED).sum())
    model.train()
    nll = total / count
    return math.exp(nll) if nll < 700 else None  # NaN compares false; exp(710) is beyond float64
