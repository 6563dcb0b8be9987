"""Models and tokenizers from a checkpoint's files; what does not fit them is one line."""

import os
import sys
import warnings
from typing import Any

from bench import malloc
from bench.schema import UserError
from bench.suite.checkpoints import Checkpoint


def load_model(kind: Any, checkpoint: Checkpoint, **options: Any) -> Any:
    """`kind.from_pretrained` in evaluation mode, every parameter from the files, quick on a CPU.  Raises UserError.

    This process then keeps memory that tensors free (`bench.malloc`).

    `kind`: one of transformers' Auto classes, which fill what the files lack with random numbers.
    """
    from bench.suite.activations import block_gelus, skip_dropouts
    from bench.suite.products import by_onednn

    model, info = _from_pretrained(kind, checkpoint, output_loading_info=True, **options)
    if lacking := sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"]))):
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        source = checkpoint.source
        raise UserError(f"checkpoint {source}: its weights do not fit its config.json: no {lacking[0]}{more}")
    block_gelus(model)
    skip_dropouts(model)
    by_onednn(model)
    malloc.keep_freed()
    return model.eval()


def load_tokenizer(checkpoint: Checkpoint, **options: Any) -> Any:
    """The checkpoint's tokenizer.  Raises UserError."""
    from transformers import AutoTokenizer

    return _from_pretrained(AutoTokenizer, checkpoint, **options)


def end_of_text(tokenizer: Any) -> int:
    """The id of the end-of-text token.  Raises UserError where the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise UserError("the checkpoints' tokenizer has no end-of-text token")
    return int(tokenizer.eos_token_id)


def _from_pretrained(kind: Any, checkpoint: Checkpoint, **options: Any) -> Any:
    try:
        return kind.from_pretrained(checkpoint.path, **options)
    except Exception as error:  # transformers raises many kinds for files that do not fit
        told = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {checkpoint.source}: cannot be loaded ({type(error).__name__}): {told}") from error


def quieten() -> None:
    """Keep the libraries' own notes and bars off the terminal."""
    from transformers.utils import logging

    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"  # read when datasets is imported, which takes a while
    warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
