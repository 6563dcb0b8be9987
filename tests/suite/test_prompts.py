"""Prompt sets from packaged data and from files."""

import gzip
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


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path: Path) -> None:
    for name, content in (
        ("p.txt", "one\ntwo\n"),
        ("p.csv", "text\none\ntwo\n"),
        ("p.jsonl", '{"text": "one"}\n{"text": "two"}'),
    ):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert [p.text for p in load_set("s", PromptSource(source=str(tmp_path / name)))] == ["one", "two"]


def test_words_that_elsewhere_mean_missing_are_text(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("text,label\nNA,1\nnull,1\nnan,0\n3,1\n")
    found = load_set("s", PromptSource(source=str(tmp_path / "p.csv"), label=(1,)))
    assert [(p.row, p.text) for p in found] == [(0, "NA"), (1, "null"), (3, "3")]


def test_packed_files_are_read_like_others(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "p.tsv.gz", "wt") as file:
        file.write("text\tlabel\none\t0\n")
    assert [p.text for p in load_set("s", PromptSource(source=str(tmp_path / "p.tsv.gz")))] == ["one"]


def test_csv(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('text,label\n"one, two",1\nthree,0\n')
    assert [p.text for p in load_set("s", PromptSource(source=str(tmp_path / "p.csv")))] == ["one, two", "three"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"text": "a"}\n{"text": "  "}\n', "row 1 is empty"),
        ("p.jsonl", '{"txt": "a"}\n', "no column 'text'; the rows have txt"),
        ("p.jsonl", '{"text": 3}\n', "should hold a text, got 3"),
        ("p.jsonl", '{"text": "a"}\n\n{broken\n', "cannot be read: line 3: "),
        ("p.jsonl", '{"text": "a"}\n[1]\n', "line 2: expected an object with columns"),
        ("p.json", '[{"text": "a"}, 3]', "entry 1: expected an object"),
        ("p.jsonl", '{"text": "\\ud800"}\n', "row 0.text: holds half a character"),
        ("p.csv", "text,label\na,1,2\n", "more cells than the header"),
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
