"""The leak guard: no sentence that judges an expert may be one that it learnt from."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from bench.schema import Prompt, UserError

SHOWN = 3  # leaked sentences named in a refusal


def normalised(text: str) -> str:
    """What two texts are compared by: letters and digits alone, after NFKC and case folding.

    So the treebank's spacing and brackets (`it 's`, `-LRB-`), punctuation and capitals make no difference.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", "", re.sub(r"-[lr][rsc]b-", "", folded))


def require_no_leak(learned: Mapping[str, Sequence[Prompt]], held_out: Mapping[str, Sequence[Prompt]]) -> None:
    """Raise UserError where an evaluator's held-out sentence is one that an expert is trained or chosen on.

    `learned`: the suite's key of a set of sentences -> those that an expert learns from.
    """
    seen: dict[str, str] = {}
    for place, sentences in learned.items():
        for sentence in sentences:
            seen.setdefault(normalised(sentence.text), f"{place} row {sentence.row}")
    seen.pop("", None)
    leaks = [
        f"{evaluator} {sentence.set} row {sentence.row} {sentence.text[:60]!r} ({seen[key]})"
        for evaluator, sentences in held_out.items()
        for sentence in sentences
        if (key := normalised(sentence.text)) in seen
    ]
    if leaks:
        more = f" and {len(leaks) - SHOWN} more" if len(leaks) > SHOWN else ""
        raise UserError(
            f"{len(leaks)} evaluation sentence{'s' * (len(leaks) > 1)} among those that experts learn from: "
            f"{'; '.join(leaks[:SHOWN])}{more}; take them out there, or name their source in finetune.exclude"
        )
