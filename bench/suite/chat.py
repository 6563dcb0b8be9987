"""Prompts as a chat model reads them: the tokenizer's own template around each."""

from collections.abc import Sequence

from bench.schema import Prompt, UserError
from bench.suite.checkpoints import Checkpoint
from bench.suite.loading import load_tokenizer


def rendered(prompts: Sequence[Prompt], checkpoint: Checkpoint, system: str) -> list[Prompt]:
    """Each prompt as the user's turn, after the system's text if there is one, with the assistant's turn begun.

    What comes back is what models read and what is stored.  Raises UserError where the tokenizer has no template, or
    its template refuses the turns.
    """
    tokenizer = load_tokenizer(checkpoint)
    if not tokenizer.chat_template:
        raise UserError(f"chat: the tokenizer of {checkpoint.source} has no chat template; leave chat out")
    before = [{"role": "system", "content": system}] if system else []
    found = []
    for prompt in prompts:
        turns = [*before, {"role": "user", "content": prompt.text}]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise what they like
            told = " ".join(str(error).split())[:200]
            raise UserError(f"chat: the template of {checkpoint.source} refuses the prompts: {told}") from error
        found.append(prompt.model_copy(update={"text": text}))
    return found
