"""What is published works: the pages workflow's own commands, the light installation, Datasette's metadata."""

import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.schema import PromptSource, Suite
from bench.store.write import Store

ROOT = Path(__file__).parent.parent.parent
WORKFLOW = yaml.load((ROOT / ".github" / "workflows" / "pages.yml").read_text(), Loader=yaml.BaseLoader)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "datasets",
    "evaluate",
    "vllm",
    "pyarrow",
)


def test_the_workflow_may_do_no_more_than_it_needs() -> None:
    render, deploy = WORKFLOW["jobs"]["render"], WORKFLOW["jobs"]["deploy"]
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in render
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}
    assert deploy["needs"] == "render" and deploy["environment"]["name"] == "github-pages"
    actions = [step["uses"] for job in (render, deploy) for step in job["steps"] if "uses" in step]
    assert [name.partition("@")[0] for name in actions] == [
        "actions/checkout", "actions/setup-python", "actions/upload-pages-artifact", "actions/deploy-pages",
    ]  # fmt: skip
    assert all(name.partition("@")[2].removeprefix("v").isdigit() for name in actions)


def test_its_render_command_needs_the_light_installation_alone(tmp_path: Path) -> None:
    """The step as it stands, in a checkout's place, by an interpreter that has none of the heavy packages."""
    steps = WORKFLOW["jobs"]["render"]["steps"]
    (command,) = (step["run"] for step in steps if step.get("name") == "Render")
    (path,) = (step["with"]["path"] for step in steps if "upload" in step.get("uses", ""))
    (tmp_path / "results").mkdir()
    with closing(Store.open(tmp_path / "results" / "mine.db")) as store:
        store.suite(Suite(name="s", checkpoints={"base": "x"}, prompts={"n": PromptSource(source="x")}, methods=()))
    program = f"import sys\nfor name in {HEAVY}: sys.modules[name] = None\nfrom bench.cli import main\nmain()\n"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "lerpbench").write_text(f"#!{sys.executable}\n{program}")
    (tools / "lerpbench").chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    bash = ["bash", "-e", "-c", command]
    done = subprocess.run(bash, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / path / "index.html").is_file()


def test_the_light_installation_is_part_of_the_whole() -> None:
    light = set(PROJECT["dependency-groups"]["site"])
    assert light < set(PROJECT["project"]["dependencies"])
    assert not [name for name in light if name.startswith(HEAVY)]


def test_databases_to_publish_are_not_ignored_by_git() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")

    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0

    assert not ignored("results/mine.db")
    assert ignored("results.db")


def test_the_database_is_whole_for_other_tools(tmp_path: Path) -> None:
    """Declared references, views that answer, and Datasette's metadata about tables and columns that are there."""
    with closing(Store.open(tmp_path / "r.db")) as store:
        db = store.db
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        for table in db.table_names():
            referring = {key.column for key in db.table(table).foreign_keys}
            named = {column for column in db.table(table).columns_dict if column.endswith("_id")}
            assert named == referring, f"{table}: columns that name another row, and declared references"
        for view in db.view_names():
            assert db.execute(f"SELECT * FROM {view}").fetchall() == []
        metadata = yaml.safe_load((ROOT / "docs" / "datasette.yaml").read_text())
        for table, settings in metadata["databases"]["results"]["tables"].items():
            columns = {c[0] for c in db.execute(f"SELECT * FROM {table}").description}
            asked = {
                *settings.get("facets", []),
                *(settings[key] for key in ("label_column", "sort") if key in settings),
            }
            assert asked <= columns, table
