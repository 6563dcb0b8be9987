"""Prompts from a file of a repository on the hub."""

import json
from pathlib import Path

import pytest
import yaml
from standin import Hub, Lerpbench


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_a_suites_prompts_are_read_from_a_file_on_the_hub(
    hub: Hub, lerpbench: Lerpbench, tiny_suite: Path, tmp_path: Path, kind: str
) -> None:
    rows = [{"prompt": {"text": f"The {word} movie"}} for word in ("first", "second", "third")]
    hub.repositories[kind, "ann/sets"] = {"a/b/neutral.jsonl": "\n".join(map(json.dumps, rows)).encode()}
    suite = yaml.safe_load(tiny_suite.read_text())
    suite["prompts"] = {
        "neutral": {"source": "hub:ann/sets@main/a/b/neutral.jsonl", "column": "prompt.text", "limit": 2}
    }
    suite["evaluators"] = ["distinct"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
    planned = lerpbench("plan", "s.yaml", "--engine", "transformers")
    assert planned.returncode == 0, planned.stderr
    assert "2 prompts x 3 samples" in planned.stdout
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite).replace("neutral.jsonl", "other.jsonl"))
    refused = lerpbench("plan", "s.yaml", "--engine", "transformers")
    assert refused.returncode == 2 and "other.jsonl): the hub could not give it (" in refused.stderr
