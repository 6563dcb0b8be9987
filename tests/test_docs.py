"""The documents' promises: links lead somewhere, commands parse, snippets run, suites load, and every number that the
code knows is the code's and stands once."""

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from typer.main import get_command

import lerpbench as lb
import methods
from bench import stats
from bench.cli import app
from bench.engines.vllm import LARGEST_SHARE
from bench.engines.vllm_support import VllmSettings
from bench.overhead import estimate, model, stopwatch
from bench.run import forecast
from bench.schema import FinetuneSpec, OverheadSpec
from bench.submissions import bundle, recompute, verdicts
from bench.suite.checkpoints import resolve
from bench.suite.prompts import PACKAGED
from evaluators import scoring
from evaluators.linearity import Linearity
from evaluators.perplexity import Perplexity
from leaderboard.measure import rank
from leaderboard.show import completions

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "leaderboard/METHODOLOGY.md", *ROOT.glob("docs/*.md")]
)
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
COMMANDS: click.Group = get_command(app)  # type: ignore[assignment]


def blocks(text: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [body for name, body in fenced if name == language]


# ---------------------------------------------------------------------------------------------- links and paths


def anchors(text: str) -> set[str]:
    """GitHub's names for a page's headings."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXTS[name]):
        path, _, heading = target.partition("#")
        found = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert found.exists(), f"{name}: {target}"
        assert not heading or heading in anchors(found.read_text(encoding="utf-8")), f"{name}: {target}"


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_and_module_that_is_named_is_there(name: str) -> None:
    rooms = "bench|methods|evaluators|leaderboard|lerpbench|tools|tests|docs|scripts"
    for path in re.findall(rf"(?<![\w./])(?:{rooms})/[\w./-]*\w", TEXTS[name]):
        assert (ROOT / path).exists(), f"{name}: {path}"
    for dotted in re.findall(rf"(?:`|-m )((?:{rooms})\.[a-z_.]+\w)", TEXTS[name]):
        file = ROOT / dotted.replace(".", "/")
        here = [file, file.with_suffix(".py"), file.parent.with_suffix(".py")]  # a package, a module, a name in one
        assert dotted.startswith("lerpbench.") or any(path.exists() for path in here), f"{name}: {dotted}"


def test_every_room_of_the_code_is_on_the_plan() -> None:
    packages = {p.parent for room in ("bench", "leaderboard") for p in ROOT.glob(f"{room}/*/__init__.py")}
    for package in sorted(packages):
        assert f"`{package.relative_to(ROOT).as_posix()}/`" in TEXTS["docs/ARCHITECTURE.md"], package.name


def test_the_readme_fits_two_screens() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 90


# ---------------------------------------------------------------------------------------------- commands, snippets


def calls(text: str) -> Iterator[list[str]]:
    """Every `lerpbench ...` of a page: lines of code blocks, and code in a line that has arguments."""
    lines = [line for block in blocks(text, "") for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in [*lines, *re.findall(r"`(lerpbench [^`]+)`", prose)]:
        for part in re.split(r"[;|] ", line.partition(" #")[0]):
            words = shlex.split(part)
            if words[:1] == ["lerpbench"]:
                yield words[1:]


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_parses(name: str) -> None:
    for command, *rest in calls(TEXTS[name]):
        assert command in COMMANDS.commands, f"{name}: lerpbench {command}"
        if rest:
            COMMANDS.commands[command].make_context(command, rest)


def test_every_command_is_in_the_readme() -> None:
    for name in COMMANDS.commands:
        assert re.search(rf"\b{name}\b", TEXTS["README.md"]), f"README.md does not mention `lerpbench {name}`"


@pytest.mark.parametrize("name", methods.TABLE)
def test_a_method_says_of_itself_what_the_page_says(name: str) -> None:
    cls = methods.registry().get(name)
    row = f"| `{name}` | {cls.mixes} | {cls.models_per_token} | {cls.formula} | {cls.source} |"
    assert row in TEXTS["docs/METHODS.md"].splitlines()


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for name, text in TEXTS.items():
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets, name


def test_the_suites_of_the_pages_are_suites(tmp_path: Path) -> None:
    names = []
    for text in TEXTS.values():
        for body in (body for body in blocks(text, "yaml") if body.startswith("name:")):
            (tmp_path / "s.yaml").write_text(body)
            names.append(lb.load(tmp_path / "s.yaml").name)
    assert names == ["my-suite", "real"]


def test_the_method_and_the_evaluator_of_the_pages_run(tiny_suite: Path, tmp_path: Path) -> None:
    for code in (code for text in TEXTS.values() for code in blocks(text, "python")):
        if (name := re.match(r"# (my_\w+\.py)\n", code)) is not None:
            assert len([line for line in code.splitlines()[1:] if line.strip()]) < 20
            (tmp_path / name[1]).write_text(code)
    suite = yaml.safe_load(tiny_suite.read_text().replace("./", f"{tiny_suite.parent}/"))
    suite["methods"] = ["base", {"my_methods:TaskVector": {"alpha": [0, 1]}}]
    suite["evaluators"] = ["my_evaluators:Exclamations"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
    command = [sys.executable, "-m", "bench.cli", "evaluate", "s.yaml", "--db", "r.db"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for stage in ("generate", "evaluate"):
        command[3] = stage
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "r.db") as connection:
        found = connection.execute("SELECT method, value FROM results WHERE metric = 'exclamations'").fetchall()
    assert {method for method, _ in found} == {"base", "my_methods:TaskVector"}
    assert all(0 <= value <= 1 for _, value in found)


# ---------------------------------------------------------------------------------------------- facts


def n_prompts(*names: str) -> int:
    return sum(len((PACKAGED / f"{name}.jsonl").read_text().splitlines()) for name in names)


BASE = resolve("mini:base")
EXPERTS = {"expert": {"train": {"source": "x"}, "validation": {"source": "y"}}}
CPU = VllmSettings.from_environment("cpu", {})
FACTS = {  # what a page says, with a group for each number -> what the code does.  Numbers are read as floats
    r"fit its budget of (\S+) MB": completions.BUDGET_BYTES / 1e6,
    r"reckons with (\S+) bytes a completion and (\S+) bytes a token": (
        forecast.BYTES_BESIDE_TEXT,
        forecast.BYTES_PER_TOKEN,
    ),
    r"intervals with (\d+) resamples\. Prompts": stats.RESAMPLES,
    r"interval resamples rounds \((\d+) times\)": estimate.RESAMPLES,
    r"ratio is known to \+-(\d+) % of itself, at least (\d+) and at most (\d+)": (
        100 * OverheadSpec().precision,
        OverheadSpec().rounds,
        OverheadSpec().rounds * stopwatch.MOST_TIMES,
    ),
    r"ends them earlier, after (\d+) at the least": stopwatch.LEAST_ROUNDS,
    r"\(a (\d+) x \d+ matrix product; a matrix-vector product": model.SIDE,
    r"price is at most (\S+) times the base's": rank.PRICE,
    r"`cap` \((\S+); null for none\)": Perplexity().cap,
    r"`top_p` \((0\.\d+)\)\. KL": Linearity().top_p,
    r"a GPU a batch begins at ([\d,]+) tokens": scoring.TOKENS_PER_BATCH["cuda"],
    r"a score may differ by (\S+) \((\S+) with `precision: bfloat16`\).* everything else by (\S+)\.": (
        recompute.TOLERANCE["float32"],
        recompute.TOLERANCE["bfloat16"],
        verdicts.EXACT,
    ),
    r"no more than (\d+)\s+bytes for one": bundle.MAX_RATIO,
    r"Learning rate (\S+), batch (\d+) and (\d+) steps \(its table 2\)": (
        *FinetuneSpec(experts=EXPERTS).learning_rate,
        *FinetuneSpec(experts=EXPERTS).batch_size,
        *FinetuneSpec(experts=EXPERTS).steps,
    ),
    r"\| `max_num_seqs` \| (\d+) \(CPU (\d+)\)": (VllmSettings().max_num_seqs, CPU.max_num_seqs),
    r"\| `max_num_batched_tokens` \| (\d+)": VllmSettings().max_num_batched_tokens,
    r"`max_num_seqs` x (\d+) tokens, at most (\d+) % of what is free": (
        VllmSettings().tokens_per_sequence,
        100 * LARGEST_SHARE,
    ),
    r"over the (\d+) mini prompts": n_prompts("prompts/neutral", "prompts/positive", "prompts/negative"),
    r"trials, (\d+) sentences, ": n_prompts("reviews/train"),
    r"tokenizer of (\d+) tokens and a context of (\d+)": (BASE.config["vocab_size"], BASE.config["n_positions"]),
}


@pytest.mark.parametrize("pattern", FACTS)
def test_a_number_that_the_code_knows_is_the_codes_and_stands_once(pattern: str) -> None:
    spaced = pattern.replace(" ", r"\s+")
    found = [match.groups() for text in TEXTS.values() for match in re.finditer(spaced, text)]
    assert len(found) == 1, f"stands {len(found)} times"
    expected = FACTS[pattern] if isinstance(FACTS[pattern], tuple) else (FACTS[pattern],)
    assert [float(group.replace(",", "")) for group in found[0]] == pytest.approx(expected)


WORDS = 9  # that no two places have in common


def test_nothing_is_said_twice() -> None:
    """No run of words stands at two places, numbers counting as equal: said twice, they part company one day."""
    places: dict[tuple[str, ...], set[str]] = {}
    for name, text in TEXTS.items():
        for words in map(words_of, paragraphs(text)):
            for i in range(len(words) - WORDS + 1):
                run = tuple(words[i : i + WORDS])
                if run.count("#") < WORDS / 2:
                    places.setdefault(run, set()).add(f"{name}: {' '.join(words[:i][-3:])} ...")
    assert {" ".join(run): where for run, where in places.items() if len(where) > 1} == {}


def paragraphs(text: str) -> list[str]:
    """A page's prose: no code, no tables, nothing that a command splices in."""
    spliced = r"^<!-- [\w ]+:begin -->$.*?^<!-- [\w ]+:end -->$"
    bare = re.sub(rf"^```.*?^```$|^\|.*?$|{spliced}", "\n", text, flags=re.DOTALL | re.MULTILINE)
    return re.split(r"\n\s*\n", bare)


def words_of(text: str) -> list[str]:
    return [re.sub(r"\d[\d.,]*", "#", word) for word in re.findall(r"[^\W\d_]+|\d[\d.,]*", text.lower())]


def test_the_check_finds_numbers_that_differ() -> None:
    a, b = (
        "The site carries as many texts as fit 2.6 MB of room.",
        "The site carries as many texts as fit 1.9 MB of room.",
    )
    assert words_of(a) == words_of(b)
    assert paragraphs("a\nb\n\n| c |\n\n```\nd\n```\ne") == ["a\nb", "e"]
