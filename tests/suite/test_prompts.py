"""Prompt sets from packaged data and from files."""

import json
from pathlib import Path

import pytest

from bench.schema import PromptSource, UserError
from bench.suite.prompts import load_prompts, load_set


def test_packaged_prompts_are_there() -> None:
    sets = {name: PromptSource(source=f"mini:prompts/{name}") for name in ("neutral", "positive", "negative")}
    prompts = load_prompts(sets)
    sizes = {name: sum(p.set == name for p in prompts) for name in sets}
    assert sizes["neutral"] >= 40 and sizes["positive"] >= 20 and sizes["negative"] >= 20


@pytest.mark.parametrize("name", ["positive", "negative"])
def test_packaged_sentences_are_there(name: str) -> None:
    assert len(load_set(name, PromptSource(source=f"mini:sentences/{name}"))) >= 120


def test_nested_columns_labels_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows = [{"prompt": {"text": f"text {i}"}, "label": i % 3} for i in range(9)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = load_set("s", PromptSource(source=str(path), column="prompt.text", label=(0, 2)), limit=3)
    assert [(p.row, p.text) for p in found] == [(0, "text 0"), (2, "text 2"), (3, "text 3")]


def test_repeated_texts_keep_their_rows(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("same\nsame\n")
    assert [p.row for p in load_set("s", PromptSource(source=str(tmp_path / "p.txt")))] == [0, 1]


def test_csv(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('text,label\n"one, two",1\nthree,0\n')
    assert [p.text for p in load_set("s", PromptSource(source=str(tmp_path / "p.csv")))] == ["one, two", "three"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"text": "a"}\n{"text": "  "}\n', "row 1 is empty"),
        ("p.jsonl", '{"txt": "a"}\n', "no column 'text'; the rows have txt"),
        ("p.jsonl", '{"text": 3}\n', "should hold a text, got 3"),
        ("p.jsonl", "{broken\n", "cannot be read"),
        ("p.docx", "x", "expected a file ending in"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_set("s", PromptSource(source=str(tmp_path / name)))


def test_missing_sources() -> None:
    with pytest.raises(UserError, match="no such file"):
        load_set("s", PromptSource(source="/no/such/file.jsonl"))
    with pytest.raises(UserError, match="the hub could not give it"):
        load_set("s", PromptSource(source="hub:some-owner/some-data"))
