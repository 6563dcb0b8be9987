"""The portable reference engine: any causal language model of transformers, on CPU or one GPU.

Weight space is `bench.engines.flat`.  Logit or probability space: every member runs with its own key-value cache,
behind its own prefix, and the next tokens' distributions are mixed at each step; members may be of different sizes.
Activation space: a hook on one layer.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from bench.engines.attention import ATTENTION
from bench.engines.flat import FlatWeights
from bench.engines.mixing import mix_logits, mix_probs, plausible
from bench.engines.sampling import (
    first_draw,
    from_step,
    most_likely,
    nucleus_mask,
    redraw,
    row_keys,
    rows_per_chunk,
    uniforms,
)
from bench.engines.static import OFF, Loops, Rows
from bench.engines.steering import steer, steering_vector
from bench.engines.stream import Member, Stream, require_decodable, right_padded
from bench.progress import Advance, silent
from bench.schema import STEERING, Completion, Prompt, Recipe, Sampling
from bench.suite.architecture import Architecture, architecture, rows_at_once
from bench.suite.checkpoints import Checkpoint
from bench.suite.exponentials import log_totals
from bench.suite.heads import Head, head_of
from bench.suite.loading import end_of_text, load_model, load_tokenizer
from bench.suite.products import halved, has_bfloat16

NEVER = -1  # an end-of-text token that no row draws
ROWS_READ = {"cpu": 32, "cuda": 128}  # texts of about one length in a batch: few, so that little of it is padding
KEPT_TEXTS = 2**17  # whose tokens are kept, since every point of a suite asks for the same prompts and sentences
KEPT_BYTES = 2**28  # of hidden states that every point of a sweep in logit space asks for


class TransformersEngine:
    """Serves mixtures of checkpoints of one vocabulary; see `bench.serving.Engine`."""

    name: ClassVar[str] = "transformers"
    version: ClassVar[int] = 1

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        dtype: str,
        device: str,
        batch_rows: int | None = None,
        static: bool | None = None,
    ) -> None:
        """static: decode with fixed shapes (`bench.engines.static`); by default on a GPU, unless `OFF` is 0 there."""
        self.checkpoints = dict(checkpoints)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.device = device
        self.batch_rows = batch_rows or rows_at_once(device)
        self.static = device != "cpu" and os.environ.get(OFF) != "0" if static is None else static
        self.loops = Loops()
        self._scratch: Tensor | None = None
        self._weights = FlatWeights(self.checkpoints, self._load, self.dtype, device)
        self._members: dict[str, Any] = {}  # models for logit space, by checkpoint
        self._known: WeakKeyDictionary[Any, tuple[Head, bool]] = WeakKeyDictionary()  # of a model: see `Member`
        self._states: dict[tuple[Any, ...], Tensor] = {}  # what members made of texts
        self._hook: Any = None  # of the served activation addition
        self._token_ids = lru_cache(KEPT_TEXTS)(self._tokenized)
        self.tokenizer = load_tokenizer(next(iter(self.checkpoints.values())))

    def serve(self, recipe: Recipe) -> "TransformersModel":
        self._unhook()
        if recipe.space == "weights":
            return TransformersModel(self, recipe, [self._alone(self._weights.serve(recipe))])
        if recipe.space == "activations":
            return TransformersModel(self, recipe, [self._alone(self._steered(recipe))])
        members = [self._part(recipe, name, source) for name, source in recipe.checkpoints.items()]
        if recipe.draft is not None:
            from bench.engines.speculative import SpeculativeModel

            return SpeculativeModel(self, recipe, members, self._draft(recipe.draft.recipe))
        return TransformersModel(self, recipe, members)

    def sweep(
        self, recipes: Sequence[Recipe], prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent
    ) -> list[list[Completion]]:
        from bench.engines.sweep import SweepModel

        served = self.serve(recipes[0])
        return SweepModel(self, recipes, served.members).generate_each(prompts, sampling, advance)

    def mixtures_per_batch(self, prompts: Sequence[Prompt], sampling: Sampling) -> int:
        return max(1, self.batch_rows // (len(prompts) * sampling.samples))

    def survived_update(self) -> float | None:
        return self._weights.survived_update()

    def batches(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[int]]:
        """Alike lengths share a batch."""
        lengths = [len(self.token_ids(prompt.text)) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lengths.__getitem__)
        per_batch = max(1, self.batch_rows // sampling.samples)
        return [order[start : start + per_batch] for start in range(0, len(order), per_batch)]

    def token_ids(self, text: str) -> list[int]:
        return list(self._token_ids(text))

    def _tokenized(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def context_length(self) -> int:
        known = [found.context for found in self._architectures if found.context is not None]
        return min(known, default=2**20)

    @cached_property
    def _architectures(self) -> list[Architecture]:
        return [architecture(checkpoint) for checkpoint in self.checkpoints.values()]

    def scratch(self, rows: int, vocabulary: int) -> Tensor:
        """(>= rows, V) float32 that the sampler may overwrite; kept from step to step."""
        if self._scratch is None or len(self._scratch) < rows or self._scratch.shape[1] != vocabulary:
            self._scratch = torch.empty(rows, vocabulary, device=self.device)
        return self._scratch

    def close(self) -> None:
        self._unhook()
        self._scratch = None
        self._states.clear()
        self.loops.clear()
        self._weights.clear()
        self._members.clear()
        if self.device != "cpu":
            torch.cuda.empty_cache()  # others in this process may want it

    # ------------------------------------------------------------------------------------------ members

    def states(self, member: Member, rows: Sequence[Sequence[int]], first: int) -> Tensor:
        """What a member draws every token of the rows from, one row behind another: (sum of lengths, h).

        `first` stands before a row.
        """
        return self._kept(member, rows, first)

    def last_states(self, member: Member, rows: Sequence[Sequence[int]]) -> Tensor:
        """What a member draws the token behind each row from: (B, h).  Nothing stands before a row but its prefix."""
        return self._kept(member, rows, None)

    def _kept(self, member: Member, rows: Sequence[Sequence[int]], first: int | None) -> Tensor:
        """On a CPU the states of models that no mixture changes are kept, up to a bound."""
        if self.device != "cpu" or self._hook is not None or member.model not in self._members.values():
            return self._run(member, rows, first)
        key = (id(member.model), tuple(member.prefix), first, tuple(map(tuple, rows)))
        if key in self._states:
            return self._states[key]
        found = self._run(member, rows, first)
        if found.nbytes + sum(other.nbytes for other in self._states.values()) <= KEPT_BYTES:
            self._states[key] = found
        return found

    def _run(self, member: Member, rows: Sequence[Sequence[int]], first: int | None) -> Tensor:
        inputs = [[*member.prefix, *row] if first is None else [first, *member.prefix, *row][:-1] for row in rows]
        padded = right_padded(inputs, self.tokenizer.eos_token_id, self.device)
        hidden: Tensor = member.model.base_model(input_ids=padded, use_cache=False).last_hidden_state
        if first is None:
            last = torch.tensor([len(row) - 1 for row in inputs], device=self.device)
            return hidden[torch.arange(len(rows), device=self.device), last]
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        real = torch.arange(int(lengths.max()), device=self.device) < lengths[:, None]  # (B, T)
        return hidden[:, len(member.prefix) :][:, : real.shape[1]][real]

    def _part(self, recipe: Recipe, name: str, source: str) -> Member:
        prefix = recipe.prefixes[name].text if name in recipe.prefixes else ""
        model = self._member(source)
        return Member(recipe.coefficients[name], model, *self._known[model], self.token_ids(prefix))

    def _alone(self, model: Any) -> Member:
        return Member(1.0, model, *self._known[model])

    def _draft(self, recipe: Recipe) -> Member:
        """In bfloat16 where this CPU has it: how near a draft is decides about time alone."""
        member = self._alone(self._weights.serve(recipe))
        if self.device != "cpu" or self.dtype != torch.float32 or member.head.behind is not None or not has_bfloat16():
            return member
        twin = halved(member.model)
        return Member(1.0, twin, Head(twin.get_output_embeddings()), member.plain)

    def _steered(self, recipe: Recipe) -> Any:
        """The base with the recipe's vector added to a layer, until another recipe is served."""
        model = self._member("base")
        if recipe.steering is not None:
            layer = recipe.steering.layer
            start = [self.tokenizer.eos_token_id]
            texts = [start + self.token_ids(t) for t in (recipe.steering.add, recipe.steering.subtract)]
            vector = steering_vector(model, layer, *texts)
            self._hook = steer(model, layer, recipe.coefficients[STEERING] * vector)
        return model

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _load(self, name: str, dtype: torch.dtype | None) -> Any:
        """A checkpoint's model on the CPU, in a dtype or its own; casting a loaded one would round its buffers too."""
        wanted, checkpoint = "auto" if dtype is None else dtype, self.checkpoints[name]
        model = load_model(AutoModelForCausalLM, checkpoint, dtype=wanted, attn_implementation=attention_of(checkpoint))
        model.config.pad_token_id = None  # masks tell padding; transformers would look for it in every input
        head = head_of(model, checkpoint)
        self._known[model] = head, require_decodable(model, head, checkpoint)
        return model.requires_grad_(False)

    def _member(self, name: str) -> Any:
        if name not in self._members:
            self._members[name] = self._load(name, self.dtype).to(self.device)
        return self._members[name]


def attention_of(checkpoint: Checkpoint) -> str | None:
    """Ours; None, the model's own, where it has one that torch's cannot replace; eager where it caps its scores."""
    config = AutoConfig.from_pretrained(checkpoint.path)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if getattr(config.get_text_config(), "attn_logit_softcapping", None):
        return "eager"
    return ATTENTION if model._supports_sdpa and model._can_set_attn_implementation() else None


class TransformersModel:
    """A served mixture: members with their coefficients (one of weight 1 where weights or activations are mixed)."""

    n_mixtures = 1

    def __init__(self, engine: TransformersEngine, recipe: Recipe, members: Sequence[Member]) -> None:
        self.engine = engine
        self.recipe = recipe
        self.members = members
        self.tokenizer = engine.tokenizer
        self.coefficients = [[member.coefficient for member in members]]  # (mixtures, m)
        self.end = end_of_text(engine.tokenizer)
        self.vocabulary = min(member.head.out_features for member in members)

    def token_ids(self, text: str) -> list[int]:
        return self.engine.token_ids(text)

    def context_length(self) -> int:
        return self.engine.context_length() - max(len(member.prefix) for member in self.members)

    @property
    def fixed(self) -> bool:
        """Whether rows are decoded in fixed shapes (`bench.engines.static`)."""
        return self.engine.static and self.recipe.steering is None and all(member.plain for member in self.members)

    # ------------------------------------------------------------------------------------------ generation

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent) -> list[Completion]:
        return self.generate_each(prompts, sampling, advance)[0]

    @torch.inference_mode()
    def generate_each(
        self, prompts: Sequence[Prompt], sampling: Sampling, advance: Advance = silent
    ) -> list[list[Completion]]:
        """The completions of each mixture."""
        ids = [self.token_ids(prompt.text) for prompt in prompts]
        each = sampling.samples
        keys = row_keys(prompts, each, sampling.seed).view(len(prompts), each)
        drawn: dict[tuple[int, int], list[tuple[list[int], bool]]] = {}
        for batch in self.engine.batches(prompts, sampling.model_copy(update={"samples": each * self.n_mixtures})):
            rows = self._decode([ids[i] for i in batch], keys[batch].flatten(), sampling)
            for place, of in enumerate(product(range(self.n_mixtures), batch)):
                drawn[of] = rows[place * each : (place + 1) * each]
            advance(len(rows))
        return [self._completions([drawn[m, i] for i in range(len(prompts))]) for m in range(self.n_mixtures)]

    def _completions(self, drawn: Sequence[list[tuple[list[int], bool]]]) -> list[Completion]:
        """drawn: each prompt's samples, their tokens and whether they ended by themselves."""
        flat = [(i, s, tokens, stopped) for i, rows in enumerate(drawn) for s, (tokens, stopped) in enumerate(rows)]
        texts = self.tokenizer.batch_decode(
            [tokens for _, _, tokens, _ in flat], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [
            Completion(i, s, text, len(tokens), "stop" if stopped else "length")
            for (i, s, tokens, stopped), text in zip(flat, texts, strict=True)
        ]

    @torch.inference_mode()
    def decode(self, prompts: Sequence[Prompt], sampling: Sampling) -> int:
        ids = [self.token_ids(prompt.text) for prompt in prompts]
        rows = self._decode(ids, row_keys(prompts, sampling.samples, sampling.seed), sampling, end=NEVER)
        return sum(len(tokens) for tokens, _ in rows)

    def _decode(
        self, prompts: list[list[int]], keys: Tensor, sampling: Sampling, end: int | None = None
    ) -> list[tuple[list[int], bool]]:
        """Tokens of each completion without the end token, and whether it ended by itself; by mixture, then prompt.

        keys: of one mixture's rows, since all mixtures of a sweep share their noise.  `end` replaces the end-of-text
        token; NEVER does the same work and never stops.
        """
        end = self.end if end is None else end
        device = self.engine.device
        longest = max(map(len, prompts))
        room = 0 if self.fixed else sampling.max_new_tokens
        streams = [Stream(member, longest + room) for member in self.members]
        hidden = [stream.prefill(prompts, self.end, device) for stream in streams]  # m x (P, h)
        repeats = torch.arange(len(prompts), device=device).repeat_interleave(sampling.samples).repeat(self.n_mixtures)
        mixture = torch.arange(self.n_mixtures, device=device).repeat_interleave(len(keys))
        keys = keys.to(device).repeat(self.n_mixtures)
        steps = torch.arange(sampling.max_new_tokens, device=device)
        noise = uniforms(from_step(keys[:, None], steps), 0, 0)  # (B, steps)
        if self.fixed:
            rows = Rows(repeats, mixture, keys, noise)
            return finished_rows(self.engine.loops.decode(self, streams, hidden, rows, sampling, end), end)
        for stream in streams:
            stream.fork(repeats)
        hidden = [h[repeats] for h in hidden]  # m x (B, h)
        drawn = torch.full((len(repeats), sampling.max_new_tokens), end, device=device)
        live = torch.arange(len(repeats), device=device)  # rows that are decoded
        going = torch.ones_like(live, dtype=torch.bool)  # those of them that have no end yet
        for step in range(sampling.max_new_tokens):
            tokens = self.draw(hidden, sampling, keys, step, mixture, noise[:, step])
            drawn[live, step] = tokens
            going &= tokens != end
            if step + 1 == sampling.max_new_tokens:
                break
            if int(going.sum()) < 0.8 * len(live):  # drop finished rows once a fifth is idle
                kept = going.nonzero()[:, 0]
                live, going, tokens, keys, mixture, noise = (
                    x[kept] for x in (live, going, tokens, keys, mixture, noise)
                )
                if not len(live):
                    break
                for stream in streams:
                    stream.select(kept)
            hidden = [stream.step(tokens) for stream in streams]
        return finished_rows(drawn, end)

    def draw(
        self, hidden: Sequence[Tensor], sampling: Sampling, keys: Tensor, step: int, mixture: Tensor, noise: Tensor
    ) -> Tensor:
        """The next token of every row, in chunks that stay in cache.

        hidden: m x (B, h); mixture: (B,) which one each row is of; noise: (B,) the step's first random numbers.
        Returns (B,) int64.
        """
        rows = rows_per_chunk(self.vocabulary) if self.engine.device == "cpu" else len(keys)
        chunks, rejected = [], []
        for start in range(0, len(keys), rows):
            part = slice(start, start + rows)
            logits = self.logits([h[part] for h in hidden])
            mixed = self._mixed_rows(logits, mixture[part])
            allowed, top_p = self.candidates(logits, sampling.top_p)
            if sampling.temperature == 0:
                if allowed is not None:
                    mixed = mixed.masked_fill(~allowed, -torch.inf)
                chunks.append(most_likely(mixed))
                continue
            tempered = mixed if sampling.temperature == 1 else mixed.div_(sampling.temperature)
            work = None if mixed.is_cuda else self.engine.scratch(len(mixed), mixed.shape[-1])
            drawn, again = first_draw(tempered, top_p, noise[part], allowed, work)
            chunks.append(drawn)
            rejected.append(again._replace(rows=again.rows + start))
        tokens = torch.cat(chunks)
        if rejected:
            redraw(tokens, rejected, keys, step)
        return tokens

    def logits(self, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Each member's logits (B, V) float32 of its last hidden states (B, h)."""
        return alike([member.head(h).float() for member, h in zip(self.members, hidden, strict=True)])

    def _mixed(self, logits: Sequence[Tensor]) -> Tensor:
        """The mixture's logits (..., V) float32."""
        if len(logits) == 1 and self.members[0].coefficient == 1:
            return logits[0]
        mix = mix_probs if self.recipe.space == "probs" else mix_logits
        return mix([member.coefficient for member in self.members], logits)

    def _mixed_rows(self, logits: Sequence[Tensor], mixture: Tensor) -> Tensor:
        """The logits (B, V) float32 of rows of these mixtures (B,): there is one."""
        return self._mixed(logits)

    def candidates(self, logits: Sequence[Tensor], top_p: float) -> tuple[Tensor | None, float]:
        """The tokens that the recipe leaves (B, V), None where it leaves all, and the top-p that cuts them further."""
        names = list(self.recipe.coefficients)
        if self.recipe.filter_p is not None:
            return nucleus_mask(logits[names.index("base")], self.recipe.filter_p), 1.0
        if self.recipe.plausible is not None:
            return plausible(logits[names.index("expert")], self.recipe.plausible), top_p
        return None, top_p

    # ------------------------------------------------------------------------------------------ probes

    @torch.inference_mode()
    def token_logprobs(self, texts: Sequence[str], advance: Advance = silent) -> list[NDArray[np.float32]]:
        """The mixture's own probabilities: `filter_p` and `plausible` narrow generation, not these."""
        ids = [self.token_ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        found: dict[int, NDArray[np.float32]] = {}
        rows = ROWS_READ[self.engine.device]
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            logprobs = self._chosen([ids[i] for i in batch]).cpu().numpy()
            ends = np.cumsum([len(ids[i]) for i in batch])[:-1]
            found |= zip(batch, np.split(logprobs, ends), strict=True)
            advance(len(batch))
        return [found[i] for i in range(len(texts))]

    def _chosen(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """log P of every token of the rows, one row behind another, (sum of lengths,) float32; the head in chunks.

        Rows are padded on the right: causality keeps padding out of real positions.
        """
        device = self.engine.device
        hidden = [self.engine.states(member, rows, self.end) for member in self.members]
        tokens = torch.tensor([token for row in rows for token in row], device=device)
        logprobs = torch.empty(len(tokens), device=device)
        at_once = rows_per_chunk(self.vocabulary)
        for start in range(0, len(tokens), at_once):
            part = slice(start, start + at_once)
            logits = self._mixed(self.logits([h[part] for h in hidden]))
            chosen = logits.gather(1, tokens[part, None])[:, 0]
            logprobs[part] = (chosen - log_totals(logits)).float()
        return logprobs

    @torch.inference_mode()
    def next_token_logprobs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        ids = [self.token_ids(text) for text in texts]
        found, at_once = np.empty((len(ids), self.vocabulary), np.float32), rows_per_chunk(self.vocabulary)
        for start in range(0, len(ids), at_once):
            batch = ids[start : start + at_once]
            hidden = [self.engine.last_states(member, batch) for member in self.members]
            logits = self._mixed(self.logits(hidden))
            found[start : start + len(batch)] = logits.log_softmax(dim=-1).cpu().numpy()
        return found


def alike(logits: list[Tensor]) -> list[Tensor]:
    """Logits of the tokens that all members have: some checkpoints pad one vocabulary further than others."""
    smallest = min(z.shape[-1] for z in logits)
    return [z[..., :smallest] for z in logits]


def finished_rows(drawn: Tensor, end: int) -> list[tuple[list[int], bool]]:
    """Each row's tokens before the first end token, and whether there was one.  drawn: (B, T) int64."""
    rows = []
    for tokens in drawn.tolist():
        stopped = end in tokens
        rows.append((tokens[: tokens.index(end)] if stopped else tokens, stopped))
    return rows
