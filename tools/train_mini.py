"""Train the packaged small models from public text: the provenance of `bench/mini/models`.

    python -m tools.train_mini all --data DATA --work WORK        # every stage, in order
    python -m tools.train_mini language-model base --data DATA --work WORK

DATA holds the folders imdb, wiki, sst5, cola and semeval2017 (docs/MINI_MODELS.md says where each can be had).
Stages write float32 checkpoints under WORK and are seeded; `pack` stores half precision in the package, with a
card per model that states what was measured on held-out data, before and after the rounding.
"""

import csv
import gzip
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2TokenizerFast,
)

END = "<|endoftext|>"
VOCABULARY = 4096
CONTEXT = 128
PACKED = Path(__file__).parent.parent / "bench" / "mini" / "models"


@dataclass(frozen=True)
class Shape:
    """One GPT-2 shape and how long it is trained; `seed` fixes initialisation and the order of the data."""

    width: int
    layers: int
    steps: int
    seed: int
    learning_rate: float = 2e-3
    batch: int = 32


LANGUAGE_MODELS = {
    "base": Shape(width=160, layers=5, steps=6000, seed=0),
    "other": Shape(width=160, layers=5, steps=2500, seed=1),
    "judge": Shape(width=256, layers=4, steps=4000, seed=2, learning_rate=1.5e-3),
    "reader": Shape(width=128, layers=2, steps=6000, seed=3),  # the classifiers' initialisation, not packaged
}


@dataclass(frozen=True)
class Data:
    """The folder of public data sets; every method returns plain texts or (text, label) pairs."""

    root: Path

    def reviews(self, split: str) -> list[tuple[str, int]]:
        """IMDB reviews with labels 0 (negative) and 1 (positive)."""
        with gzip.open(self.root / f"imdb/{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [(re.sub(r"(<br\s*/?>|\s)+", " ", row["text"]).strip(), row["label"]) for row in rows]

    def articles(self, held_out: bool) -> list[str]:
        """Wikipedia articles; every fiftieth is held out."""
        with gzip.open(self.root / "wiki/featured.txt.gz", "rt", encoding="utf-8") as lines:
            documents = lines.read().split("\n\n")
        return [text.strip() for i, text in enumerate(documents) if (i % 50 == 0) == held_out and text.strip()]

    def sst5(self, split: str) -> list[tuple[str, int]]:
        """SST sentences in plain English spacing, with labels 0 to 4."""
        lines = (self.root / f"sst5/{split}.jsonl").read_text(encoding="utf-8").splitlines()
        return [(detokenize(row["sentence"]), row["label"]) for row in map(json.loads, lines)]

    def tweets(self) -> list[tuple[str, int]]:
        """SemEval-2017 tweets with labels 0 (negative), 1 (neutral), 2 (positive)."""
        lines = (self.root / "semeval2017/train.jsonl").read_text(encoding="utf-8").splitlines()
        return [(clean_tweet(row["text"]), row["label"]) for row in map(json.loads, lines)]

    def cola(self, split: str) -> list[tuple[str, int]]:
        """CoLA sentences with labels 0 (unacceptable) and 1 (acceptable)."""
        with (self.root / f"cola/{split}.tsv").open(encoding="utf-8") as lines:
            return [(row[3], int(row[1])) for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]


def detokenize(text: str) -> str:
    """Undo Penn Treebank spacing: `it 's n't good , really` becomes `it's n't good, really`."""
    text = text.replace("-LRB-", "(").replace("-RRB-", ")").replace("\\/", "/").replace("\\*", "*")
    text = re.sub(r"``\s*|\s*''", '"', text)
    text = re.sub(r"\s+(n't|'s|'re|'ve|'ll|'d|'m|')(?=[\s.,;:!?)\"]|$)", r"\1", text)
    text = re.sub(r"\s+([.,;:!?%)\]])", r"\1", text)
    return re.sub(r"([(\[$])\s+", r"\1", text).strip()


def clean_tweet(text: str) -> str:
    """Decode the escapes of the SemEval files; drop links and user names, keep a hashtag's word."""
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text).replace('\\""', '"')
    text = re.sub(r"https?://\S+|@\w+", "", text).replace("#", "")
    return re.sub(r"\s+", " ", text).strip()


# ---------------------------------------------------------------------------------------------- tokenizer and blocks


def train_tokenizer(data: Data, work: Path) -> None:
    """Byte-level BPE of 4096 tokens over reviews, a tenth of the articles and SST's training sentences."""
    texts = [text for text, _ in data.reviews("train")] + data.articles(held_out=False)[::3]
    texts += [text for text, _ in data.sst5("train")]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=[END])
    folder = work / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / "bpe.json"))
    tokenizer = GPT2TokenizerFast(
        tokenizer_file=str(folder / "bpe.json"),
        bos_token=END, eos_token=END, unk_token=END, pad_token=END, model_max_length=CONTEXT,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    (folder / "bpe.json").unlink()


def load_tokenizer(work: Path) -> Any:
    return AutoTokenizer.from_pretrained(work / "tokenizer")


def encode_documents(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """One stream: every text preceded by the end-of-text token.  Returns (N,) int64."""
    stream: list[int] = []
    for start in range(0, len(texts), 1000):
        for ids in tokenizer(list(texts[start : start + 1000]), verbose=False)["input_ids"]:
            stream.append(tokenizer.eos_token_id)
            stream.extend(ids)
    return torch.tensor(stream)


def training_stream(data: Data, work: Path) -> Tensor:
    """All language-model training text as one token stream, cached under WORK.  Returns (N,) int64."""
    cached = work / "stream.pt"
    if not cached.exists():
        texts = [text for split in ("train", "test") for text, _ in data.reviews(split)]
        texts += data.articles(held_out=False)
        random.Random(0).shuffle(texts)
        torch.save(encode_documents(load_tokenizer(work), texts).to(torch.int16), cached)
    stream: Tensor = torch.load(cached)
    return stream.long()


def held_out_stream(data: Data, work: Path, kind: str, tokens: int = 100_000) -> Tensor:
    texts = [text for text, _ in data.reviews("val")[:1000]] if kind == "imdb" else data.articles(held_out=True)
    return encode_documents(load_tokenizer(work), texts)[:tokens]


# ---------------------------------------------------------------------------------------------- language models


def new_config(shape: Shape, tokenizer: Any, **extra: Any) -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=shape.width, n_layer=shape.layers,
        n_head=shape.width // 32, activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id, attn_implementation="eager", **extra,
    )  # fmt: skip


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to a twentieth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def optimise(
    model: torch.nn.Module,
    loss_of: Callable[[Any], Tensor],
    batches: Iterator[Any],
    steps: int,
    peak: float,
    *,
    warmup: int,
    weight_decay: float = 0.1,
    after: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """AdamW with gradient clipping; matrices decay, vectors do not."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=True)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * learning_rate(step, steps, warmup)
        loss = loss_of(next(batches))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        after(step, float(loss.detach()))


def reporter(name: str, steps: int) -> Callable[[int, float], None]:
    """A line every hundred steps."""
    started = time.time()

    def report(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"{name} step {step}/{steps} loss {loss:.3f} {time.time() - started:.0f} s", flush=True)

    return report


def next_token_loss(model: Any) -> Callable[[Tensor], Tensor]:
    """Compiled mean cross-entropy of (B, T) int64 ids; positions that follow an ignored target count nothing."""

    def loss_of(ids: Tensor) -> Tensor:
        targets = ids[:, 1:]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.transformer(ids[:, :-1].clamp(min=0), use_cache=False).last_hidden_state
            logits = model.lm_head(hidden)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-1)

    compiled: Callable[[Tensor], Tensor] = torch.compile(loss_of, dynamic=False)
    return compiled


def train_language_model(name: str, data: Data, work: Path) -> None:
    shape = LANGUAGE_MODELS[name]
    torch.manual_seed(shape.seed)
    tokenizer = load_tokenizer(work)
    stream = training_stream(data, work)
    model = GPT2LMHeadModel(new_config(shape, tokenizer))
    order = torch.Generator().manual_seed(shape.seed)

    def batches() -> Iterator[Tensor]:
        blocks = (len(stream) - CONTEXT) // CONTEXT
        while True:
            offset = int(torch.randint(CONTEXT, (1,), generator=order))
            permuted = torch.randperm(blocks - 1, generator=order)
            for rows in torch.split(permuted, shape.batch):
                if len(rows) == shape.batch:
                    starts = rows * CONTEXT + offset
                    yield stream[starts[:, None] + torch.arange(CONTEXT + 1)]

    after = reporter(name, shape.steps)
    optimise(model, next_token_loss(model), batches(), shape.steps, shape.learning_rate, warmup=200, after=after)
    save(model, work, name)
    tokens = shape.steps * shape.batch * CONTEXT
    record(work, name, training=asdict(shape) | {"tokens": tokens, "stream_tokens": len(stream)})


def pad_sentences(tokenizer: Any, texts: Iterable[str], length: int = CONTEXT) -> Tensor:
    """`<end> sentence <end>` padded with -1 to the longest.  Returns (N, T) int64."""
    end = tokenizer.eos_token_id
    rows = [torch.tensor([end, *ids[: length - 2], end]) for ids in tokenizer(list(texts))["input_ids"]]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


EXPERT_GRID = {"learning_rate": (1e-4, 3e-4, 1e-3), "steps": (200,)}
EXPERT_LABELS = {"expert": (3, 4), "antiexpert": (0, 1)}


def train_expert(name: str, data: Data, work: Path, batch: int = 64) -> None:
    """Fine-tune the base on SST training sentences; the grid's best by validation NLL is kept (paper, table 1)."""
    tokenizer = load_tokenizer(work)
    wanted = EXPERT_LABELS[name]
    split = {s: pad_sentences(tokenizer, [t for t, y in data.sst5(s) if y in wanted]) for s in ("train", "validation")}
    trials = []
    best = math.inf
    for peak in EXPERT_GRID["learning_rate"]:
        for steps in EXPERT_GRID["steps"]:
            torch.manual_seed(10)
            model = load_language_model(work / "base", attn_implementation="eager")
            order = torch.Generator().manual_seed(10)
            optimise(model, next_token_loss(model), shuffled(split["train"], batch, order), int(steps), peak, warmup=20)
            nll = padded_nll(model, split["validation"])
            trials.append({"learning_rate": peak, "steps": steps, "batch": batch, "validation_nll": nll})
            print(name, trials[-1], flush=True)
            if nll < best:
                best = nll
                save(model, work, name)
    record(work, name, training={"labels": list(wanted), "sentences": len(split["train"]), "trials": trials})


def shuffled(rows: Tensor, batch: int, order: torch.Generator) -> Iterator[Tensor]:
    while True:
        for chosen in torch.split(torch.randperm(len(rows), generator=order), batch):
            if len(chosen) == batch:
                yield rows[chosen]


@torch.inference_mode()
def padded_nll(model: Any, rows: Tensor) -> float:
    """Mean token NLL in float32 of (N, T) ids padded with -1."""
    model.eval()
    total, count = 0.0, 0
    for ids in torch.split(rows, 64):
        logits = model(ids[:, :-1].clamp(min=0)).logits.float()
        total += float(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-1, reduction="sum"))
        count += int((ids[:, 1:] >= 0).sum())
    return total / count


# ---------------------------------------------------------------------------------------------- classifiers


def sentiment_examples(data: Data) -> list[tuple[str, int]]:
    """Three-way examples: SST training sentences, tweets, passages of labelled reviews, encyclopedia sentences."""
    draw = random.Random(4)
    examples = [(text, (0, 0, 1, 2, 2)[label]) for text, label in data.sst5("train")] * 3
    examples += data.tweets()
    for text, label in data.reviews("train"):
        sentences = re.split(r"(?<=[.!?])\s+", text)
        for start in draw.sample(range(len(sentences)), min(2, len(sentences))):
            examples.append((" ".join(sentences[start : start + 3]), 2 * label))
    for text in data.articles(held_out=False):
        sentences = re.split(r"(?<=[.!?])\s+", text.replace("\n", " "))
        examples += [(s, 1) for s in draw.sample(sentences, min(4, len(sentences)))]
    return examples


def corrupt(words: list[str], draw: random.Random) -> list[str]:
    """An unacceptable neighbour of a sentence: a swap, a drop, a repetition or a foreign word, one to three times."""
    words = list(words)
    for _ in range(draw.randint(1, 3)):
        i = draw.randrange(len(words) - 1)
        match draw.randrange(4):
            case 0:
                words[i], words[i + 1] = words[i + 1], words[i]
            case 1 if len(words) > 4:
                del words[i]
            case 2:
                words.insert(i, words[i])
            case _:
                words[i], words[draw.randrange(len(words))] = words[draw.randrange(len(words))], words[i]
    return words


def acceptability_examples(data: Data) -> list[tuple[str, int]]:
    """CoLA's training sentences, and natural sentences beside corrupted copies (CoLA alone is too small)."""
    draw = random.Random(5)
    examples = data.cola("in_domain_train") * 4
    texts = [text for text, _ in data.reviews("train")[:8000]] + data.articles(held_out=False)[:1200]
    for text in texts:
        for sentence in re.split(r"(?<=[.!?])\s+", text.replace("\n", " "))[:10]:
            words = sentence.split()
            if 4 <= len(words) <= 30:
                examples.append((sentence, 1) if draw.random() < 0.6 else (" ".join(corrupt(words, draw)), 0))
    return examples


@dataclass(frozen=True)
class Classifier:
    labels: tuple[str, ...]
    examples: Callable[[Data], list[tuple[str, int]]]
    last: Callable[[Data], list[tuple[str, int]]]  # the target data, for the last steps
    seed: int
    steps: int = 2500
    last_steps: int = 400
    batch: int = 64
    learning_rate: float = 5e-4


CLASSIFIERS = {
    "sentiment": Classifier(
        ("negative", "neutral", "positive"),
        sentiment_examples,
        lambda data: [(text, (0, 0, 1, 2, 2)[label]) for text, label in data.sst5("train")],
        seed=4,
        last_steps=0,
    ),
    "acceptability": Classifier(
        ("unacceptable", "acceptable"), acceptability_examples, lambda data: data.cola("in_domain_train"), seed=5
    ),
}


def train_classifier(name: str, data: Data, work: Path) -> None:
    """Fine-tune the reader on the classifier's examples, then shortly on the target data alone."""
    spec = CLASSIFIERS[name]
    torch.manual_seed(spec.seed)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        work / "reader",
        num_labels=len(spec.labels),
        id2label=dict(enumerate(spec.labels)),
        label2id={label: i for i, label in enumerate(spec.labels)},
        attn_implementation="eager",
    )
    for examples, steps, peak in (
        (spec.examples(data), spec.steps, spec.learning_rate),
        (spec.last(data), spec.last_steps, spec.learning_rate / 5),
    ):
        if steps:
            batches = classified_batches(load_tokenizer(work), examples, spec.batch, random.Random(spec.seed))
            optimise(model, classifier_loss(model), batches, steps, peak, warmup=100, after=reporter(name, steps))
    save(model, work, name)
    settings = {"steps": [spec.steps, spec.last_steps], "batch": spec.batch, "learning_rate": spec.learning_rate}
    record(work, name, training=settings | {"seed": spec.seed, "examples": len(spec.examples(data))})


def classifier_loss(model: Any) -> Callable[[dict[str, Tensor]], Tensor]:
    def loss_of(batch: dict[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return F.cross_entropy(logits.float(), batch["labels"])

    return loss_of


def classified_batches(
    tokenizer: Any, examples: list[tuple[str, int]], batch: int, draw: random.Random
) -> Iterator[dict[str, Tensor]]:
    """Endless shuffled batches, bucketed by length so that little is padded."""
    ids = tokenizer([text for text, _ in examples], truncation=True, max_length=64)["input_ids"]
    rows = [(tokens, label) for tokens, (_, label) in zip(ids, examples, strict=True) if tokens]
    while True:
        draw.shuffle(rows)
        for start in range(0, len(rows) - 32 * batch, 32 * batch):
            bucket = sorted(rows[start : start + 32 * batch], key=lambda row: len(row[0]))
            groups = [bucket[i : i + batch] for i in range(0, len(bucket), batch)]
            draw.shuffle(groups)
            yield from (collate(tokenizer, group) for group in groups)
        if len(rows) <= 32 * batch:
            yield collate(tokenizer, rows[:batch])


def collate(tokenizer: Any, rows: list[tuple[list[int], int]]) -> dict[str, Tensor]:
    padded = tokenizer.pad({"input_ids": [ids for ids, _ in rows]}, return_tensors="pt", padding_side="right")
    return {
        "input_ids": padded["input_ids"],
        "attention_mask": padded["attention_mask"],
        "labels": torch.tensor([y for _, y in rows]),
    }


# ---------------------------------------------------------------------------------------------- cards and packing


def save(model: Any, work: Path, name: str) -> None:
    model.save_pretrained(work / name)
    load_tokenizer(work).save_pretrained(work / name)


def record(work: Path, name: str, **values: Any) -> None:
    path = work / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values, indent=1))


def load_language_model(folder: Path, **extra: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **extra)


def measure_language_model(folder: Path, data: Data, work: Path) -> dict[str, float]:
    """Held-out token NLL (nats): reviews, encyclopedia, SST test sentences of either sentiment."""
    model = load_language_model(folder)
    tokenizer = load_tokenizer(work)
    measured = {}
    for kind in ("imdb", "wiki"):
        stream = held_out_stream(data, work, kind)
        blocks = stream[: len(stream) // CONTEXT * CONTEXT].view(-1, CONTEXT)
        measured[f"nll_{kind}"] = padded_nll(model, blocks)
    for label, wanted in (("positive", (3, 4)), ("negative", (0, 1))):
        rows = pad_sentences(tokenizer, [text for text, y in data.sst5("test") if y in wanted])
        measured[f"nll_sst_test_{label}"] = padded_nll(model, rows)
    return measured


@torch.inference_mode()
def predict(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[int]:
    model.eval()
    predicted: list[int] = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(
            list(texts[start : start + 64]), truncation=True, padding=True, padding_side="right", return_tensors="pt"
        )
        predicted += model(**batch).logits.argmax(-1).tolist()
    return predicted


def classification_report(gold: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Accuracy, macro F1, Matthews correlation, and the accuracy of always answering the majority label."""
    labels = sorted(set(gold))
    n = len(gold)
    pairs = list(zip(gold, predicted, strict=True))
    hit = sum(g == p for g, p in pairs)
    f1 = []
    for label in labels:
        true = sum(g == p == label for g, p in pairs)
        f1.append(2 * true / max(1, sum(g == label for g in gold) + sum(p == label for p in predicted)))
    gold_counts = [sum(g == k for g in gold) for k in labels]
    said_counts = [sum(p == k for p in predicted) for k in labels]
    covariance = hit * n - sum(g * s for g, s in zip(gold_counts, said_counts, strict=True))
    spread = math.sqrt((n * n - sum(s * s for s in said_counts)) * (n * n - sum(g * g for g in gold_counts)))
    return {
        "accuracy": hit / n, "f1_macro": sum(f1) / len(f1), "mcc": covariance / spread if spread else 0.0,
        "majority_accuracy": max(gold_counts) / n, "n": n,
    }  # fmt: skip


def measure_classifier(name: str, folder: Path, data: Data, work: Path) -> dict[str, float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    if name == "sentiment":
        sets = {
            "sst_test": [(text, (0, 0, 1, 2, 2)[label]) for text, label in data.sst5("test")],
            "sst_test_polar": [(text, 2 * (label > 2)) for text, label in data.sst5("test") if label != 2],
        }
    else:
        sets = {
            "cola_in_domain_dev": data.cola("in_domain_dev"),
            "cola_out_of_domain_dev": data.cola("out_of_domain_dev"),
        }
    measured: dict[str, float] = {}
    for title, examples in sets.items():
        predicted = predict(model, load_tokenizer(work), [text for text, _ in examples])
        if title == "sst_test_polar":  # neutral is no answer here: count it as wrong
            predicted = [p if p != 1 else -1 for p in predicted]
        report = classification_report([label for _, label in examples], predicted)
        measured |= {f"{title}_{key}": value for key, value in report.items()}
    return measured


def measure(name: str, folder: Path, data: Data, work: Path) -> dict[str, float]:
    if name in CLASSIFIERS:
        return measure_classifier(name, folder, data, work)
    return measure_language_model(folder, data, work)


def pack(names: Sequence[str], data: Data, work: Path) -> None:
    """Round to half precision, store beside this file, and write the card with both measurements."""
    for name in names:
        kind = AutoModelForSequenceClassification if name in CLASSIFIERS else AutoModelForCausalLM
        model: Any = kind.from_pretrained(work / name, dtype=torch.float32)
        parameters = sum(p.numel() for p in model.parameters())
        folder = PACKED / name
        model.half().save_pretrained(folder)
        load_tokenizer(work).save_pretrained(folder)
        for extra in ("vocab.json", "merges.txt", "special_tokens_map.json"):
            (folder / extra).unlink(missing_ok=True)
        full, half = (measure(name, where, data, work) for where in (work / name, folder))
        record(work, name, parameters=parameters, float32=full, float16=half)
        (folder / "README.md").write_text(card(name, json.loads((work / f"{name}.json").read_text())))
        print(name, full, half, flush=True)


DESCRIPTIONS = {
    "base": "theta0: a causal language model of film reviews and encyclopedia articles.",
    "expert": "theta+: the base fine-tuned on SST training sentences labelled positive (3, 4).",
    "antiexpert": "theta-: the base fine-tuned on SST training sentences labelled negative (0, 1).",
    "other": "The base's shape and data from another initialisation: the second basin of the paper's section 5.3.",
    "judge": "A larger causal language model whose perplexity judges the generated text.",
    "sentiment": "A three-way sentiment classifier: negative, neutral, positive.",
    "acceptability": "A linguistic acceptability classifier: unacceptable, acceptable.",
}


def card(name: str, facts: dict[str, Any]) -> str:
    """The model card in Markdown, from what was recorded while training and packing."""
    training = "\n".join(f"- {key}: {value}" for key, value in facts["training"].items() if key != "trials")
    rows = "\n".join(
        f"| {key} | {facts['float32'][key]:.4f} | {facts['float16'][key]:.4f} |" for key in facts["float32"]
    )
    trials = "".join(
        f"| {t['learning_rate']:g} | {t['steps']} | {t['validation_nll']:.4f} |\n"
        for t in facts["training"].get("trials", [])
    )
    grid = (
        f"\n## Grid search, best by validation NLL\n| learning rate | steps | NLL |\n|---|---|---|\n{trials}"
        if trials
        else ""
    )
    return f"""# {name}

{DESCRIPTIONS[name]}
{facts["parameters"]:,} parameters, stored in float16; made by `python -m tools.train_mini`, see docs/MINI_MODELS.md.

## Training
{training}
{grid}
## Held-out measurements
Token NLL in nats; the second column is the stored half-precision model.

| quantity | float32 | stored |
|---|---|---|
{rows}
"""


# ---------------------------------------------------------------------------------------------- command line

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)
DataOption = Annotated[Path, typer.Option("--data", help="folder of the public data sets", exists=True)]
WorkOption = Annotated[Path, typer.Option("--work", help="folder for float32 checkpoints and logs")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="torch threads")]


@app.command()
def tokenizer(data: DataOption, work: WorkOption) -> None:
    """Train the byte-level BPE tokenizer and cache the training stream."""
    train_tokenizer(Data(data), work)
    print(f"{len(training_stream(Data(data), work)):,} training tokens")


@app.command()
def language_model(name: str, data: DataOption, work: WorkOption, threads: ThreadsOption = 1) -> None:
    """Train base, other, judge or reader from scratch."""
    torch.set_num_threads(threads)
    train_language_model(name, Data(data), work)


@app.command()
def expert(name: str, data: DataOption, work: WorkOption, threads: ThreadsOption = 1) -> None:
    """Fine-tune expert or antiexpert from the base."""
    torch.set_num_threads(threads)
    train_expert(name, Data(data), work)


@app.command()
def classifier(name: str, data: DataOption, work: WorkOption, threads: ThreadsOption = 1) -> None:
    """Fine-tune sentiment or acceptability from the reader."""
    torch.set_num_threads(threads)
    train_classifier(name, Data(data), work)


@app.command("pack")
def pack_models(data: DataOption, work: WorkOption, only: list[str] | None = None) -> None:
    """Measure, round to half precision and store beside this file: all models, or those named by --only."""
    pack(only or list(DESCRIPTIONS), Data(data), work)


@app.command("all")
def train_all(data: DataOption, work: WorkOption, threads: ThreadsOption = 2) -> None:
    """Every stage in order (about three hours on two cores)."""
    tokenizer(data, work)
    for name in LANGUAGE_MODELS:
        language_model(name, data, work, threads)
    for name in EXPERT_LABELS:
        expert(name, data, work, threads)
    for name in CLASSIFIERS:
        classifier(name, data, work, threads)
    pack_models(data, work)


if __name__ == "__main__":
    app()
