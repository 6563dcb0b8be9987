"""Prompts in a tokenizer's chat template."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

import lerpbench
from bench.schema import Prompt, Suite, UserError
from bench.suite.chat import rendered
from bench.suite.checkpoints import Checkpoint

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
PROMPTS = [Prompt(set="p", row=3, text="How was it?")]


@pytest.fixture
def chatting(tiny_trio: dict[str, Path], tmp_path: Path) -> Checkpoint:
    tokenizer = AutoTokenizer.from_pretrained(tiny_trio["base"])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "chat")
    (tmp_path / "chat" / "config.json").write_bytes((tiny_trio["base"] / "config.json").read_bytes())
    return Checkpoint(source="chat", path=tmp_path / "chat", digest="0")


def test_a_prompt_is_the_users_turn_and_the_assistants_is_begun(chatting: Checkpoint) -> None:
    (found,) = rendered(PROMPTS, chatting, "")
    assert found == Prompt(set="p", row=3, text="[user] How was it?\n[assistant] ")
    (found,) = rendered(PROMPTS, chatting, "Be kind.")
    assert found.text == "[system] Be kind.\n[user] How was it?\n[assistant] "


def test_no_template_and_a_template_that_refuses_are_one_line(chatting: Checkpoint, tiny_trio: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="the tokenizer of plain has no chat template"):
        rendered(PROMPTS, Checkpoint(source="plain", path=tiny_trio["base"], digest="0"), "")
    tokenizer = AutoTokenizer.from_pretrained(chatting.path)
    tokenizer.chat_template = "{{ raise_exception('no system turn') }}"
    tokenizer.save_pretrained(chatting.path)
    with pytest.raises(UserError, match="the template of chat refuses the prompts: no system turn"):
        rendered(PROMPTS, chatting, "Be kind.")


def test_a_system_text_needs_a_chat() -> None:
    with pytest.raises(ValueError, match="it needs chat: true"):
        Suite(name="s", checkpoints={}, prompts={}, methods=(), system="Be kind.")


def test_a_run_works_on_the_rendered_prompt(tiny_suite: Path, tiny_trio: dict[str, Path], tmp_path: Path) -> None:
    for name in ("base", "expert", "antiexpert"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_trio[name])
        tokenizer.chat_template = TEMPLATE
        for file in tiny_trio[name].iterdir():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        tokenizer.save_pretrained(tmp_path / name)
    text = tiny_suite.read_text()
    for name in ("base", "expert", "antiexpert"):
        text = text.replace(f"{name}: {tiny_trio[name]}", f"{name}: {tmp_path / name}")
    path = tiny_suite.parent / "chat.yaml"
    path.write_text(text + "chat: true\n")
    work = lerpbench.prepare(str(path), "transformers")
    assert work.prompts[0].text == "[user] The movie\n[assistant] "
    assert work.planned[0].generation != lerpbench.prepare(str(tiny_suite), "transformers").planned[0].generation
