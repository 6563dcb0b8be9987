"""Completions arrive as they were sent."""

from hypothesis import given
from hypothesis import strategies as st

from bench.cluster.packing import REASONS, PackedSamples, pack, unpack
from bench.schema import Completion, Prompt
from evaluators.base import Samples

ANY = st.builds(
    Completion, st.integers(0, 10_000), st.integers(0, 50), st.text(max_size=8), st.integers(0, 99),
    st.sampled_from(REASONS),
)  # fmt: skip


@given(st.lists(ANY, max_size=6))
def test_unpacking_undoes_packing(completions: list[Completion]) -> None:
    assert unpack(pack(completions)) == completions


def test_samples_keep_their_prompts() -> None:
    samples = Samples([Prompt(set="s", row=3, text="The")], [Completion(0, 0, " é\0", 2, "stop")])
    assert PackedSamples.of(samples).samples() == samples
