"""Small real models that the real code runs on: two layers, made once a session, loaded like any checkpoint."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2TokenizerFast

END = "<|endoftext|>"
MAY_BE_SKIPPED = ("gpu",)  # markers of tests that CI=true lets skip: no test machine need have a GPU
CORPUS = ["The movie was good.", "The film is bad and long.", "A story of a man in the city, and the actors are great."]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skipped test is a failure: a green run has run everything."""
    report = yield
    if not any(item.get_closest_marker(name) for name in MAY_BE_SKIPPED):
        fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is imported."""
    report = yield
    fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"with CI=true no test may be skipped: {reason}"


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> GPT2TokenizerFast:
    """Byte-level BPE with 300 tokens; the end-of-text token has id 0."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(CORPUS * 20, vocab_size=300, special_tokens=[END])
    path = tmp_path_factory.mktemp("tokenizer") / "bpe.json"
    bpe.save(str(path))
    return GPT2TokenizerFast(tokenizer_file=str(path), bos_token=END, eos_token=END, unk_token=END, pad_token=END)


def tiny_config(vocabulary: int, **changes: object) -> GPT2Config:
    values: dict[str, object] = dict(
        vocab_size=vocabulary, n_positions=64, n_embd=64, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    return GPT2Config(**(values | changes))


@pytest.fixture(scope="session")
def tiny_trio(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: GPT2TokenizerFast) -> dict[str, Path]:
    """base, expert, antiexpert and other: random GPT-2s; the experts are small steps from the base."""
    root = tmp_path_factory.mktemp("trio")
    torch.manual_seed(0)
    base = GPT2LMHeadModel(tiny_config(len(tiny_tokenizer)))
    folders = {}
    for name in ("base", "expert", "antiexpert", "other"):
        model = GPT2LMHeadModel(base.config)
        if name != "other":
            model.load_state_dict(base.state_dict())
        if name in ("expert", "antiexpert"):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.02)
        folders[name] = root / name
        model.save_pretrained(folders[name])
        tiny_tokenizer.save_pretrained(folders[name])
    return folders


def save_classifier(folder: Path, tokenizer: GPT2TokenizerFast, labels: tuple[str, ...], seed: int) -> Path:
    """A random classifier with these labels."""
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    GPT2ForSequenceClassification(tiny_config(len(tokenizer), num_labels=len(labels), **names)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: GPT2TokenizerFast) -> Path:
    """A random three-way sentiment classifier."""
    return save_classifier(tmp_path_factory.mktemp("s"), tiny_tokenizer, ("negative", "neutral", "positive"), seed=1)


@pytest.fixture(scope="session")
def tiny_acceptability(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: GPT2TokenizerFast) -> Path:
    """A random acceptability classifier."""
    return save_classifier(tmp_path_factory.mktemp("a"), tiny_tokenizer, ("unacceptable", "acceptable"), seed=2)


@pytest.fixture(scope="session")
def tiny_suite(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_trio: dict[str, Path],
    tiny_classifier: Path,
    tiny_acceptability: Path,
) -> Path:
    """A suite file over the tiny models: two prompt sets, every method, every evaluator of the first hour."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "neutral.jsonl").write_text('{"text": "The movie"}\n{"text": "A story of"}\n{"text": "The movie"}\n')
    (folder / "positive.jsonl").write_text('{"text": "The good film is"}\n{"text": "The actors are great"}\n')
    (folder / "sentences.jsonl").write_text('{"text": "The movie was good."}\n{"text": "The film is bad and long."}\n')
    path = folder / "tiny.yaml"
    path.write_text(
        f"""
name: tiny
checkpoints: {{base: {tiny_trio["base"]}, expert: {tiny_trio["expert"]}, antiexpert: {tiny_trio["antiexpert"]}}}
prompts:
  neutral: {{source: ./neutral.jsonl}}
  positive: {{source: ./positive.jsonl}}
sampling: {{samples: 3, max_new_tokens: 6, seed: 1}}
methods:
  - base
  - g1: {{alpha: [0, 0.5, 1]}}
  - g3: {{alpha: [0, 1], beta: 0}}
  - dexperts: {{alpha: [0, 1]}}
evaluators:
  - sentiment: {{model: {tiny_classifier}}}
  - acceptability: {{model: {tiny_acceptability}}}
  - perplexity: {{model: {tiny_trio["other"]}}}
  - distinct
  - nll: {{sets: {{positive: {{source: ./sentences.jsonl}}}}}}
  - next_token: {{prompt: "The movie was", words: [good, bad]}}
  - linearity: {{contexts: {{neutral: {{source: ./neutral.jsonl}}}}}}
"""
    )
    return path
