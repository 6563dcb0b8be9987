"""A board's repository as a stranger meets it: the workflows' own steps, run here with stand-ins for git's host.

A good bundle passes and ends on the board; a tampered one is refused by the name of its row.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from standin import ROOT

from bench.cli.sharing import init
from bench.progress import silently
from bench.publishing.board import Checked, check, create, describe
from bench.schema import UserError
from bench.store.write import Store
from bench.submissions.bundle import DATABASE, facts, pack, record, submit, unpack

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def workflow(home: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((home / ".github" / "workflows" / name).read_text(), Loader=yaml.BaseLoader)
    return found


class Repository:
    """A board in a git repository, and a pull request's branch in it; `tools` stands before everything on PATH."""

    def __init__(self, folder: Path) -> None:
        self.home, self.tools = folder / "board", folder / "tools"
        create(self.home)
        self.tools.mkdir()
        self.tool("lerpbench", f'exec {sys.executable} -m bench.cli "$@"')
        self.tool("python", "echo python $* >> installed")  # what `python -m pip install` would fetch
        self.git("init", "-q", "-b", "main")
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "The board")
        self.git("checkout", "-q", "-b", "change")

    def tool(self, name: str, script: str) -> None:
        (self.tools / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (self.tools / name).chmod(0o755)

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.home, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def bring(self, source: Path, name: str) -> None:
        """Add a file in the pull request."""
        shutil.copyfile(source, self.home / name)
        self.git("add", "--all")
        self.git("commit", "-q", "-m", name)

    def step(self, workflow_name: str, step: str, values: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run one step of a workflow as its host does: bash, the environment of job and step, expressions filled in."""
        jobs = workflow(self.home, workflow_name)["jobs"]
        ((job, found),) = [(j, s) for j in jobs.values() for s in j["steps"] if s.get("name") == step]
        environ = {name: filled(text, values) for name, text in (job.get("env", {}) | found.get("env", {})).items()}
        assert "${{" not in found["run"], "an expression in a script would be run as part of it"
        path = {"PATH": f"{self.tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", found["run"]], cwd=self.home, env=os.environ | path | environ,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip


def filled(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: values[found[1]], text)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture(scope="module")
def bundle(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny.zip"
    submit(measured, None, path)
    return path


@pytest.fixture(scope="module")
def tampered(bundle: Path) -> Path:
    """One score raised, by someone who writes a fitting manifest."""
    path, _ = unpack(bundle, bundle.parent)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE prompt_scores SET by_sample = json_set(by_sample, '$[1]', 0.999) WHERE input_id = 1 AND "
            "evaluation_id = (SELECT min(id) FROM evaluations WHERE evaluator = 'sentiment')"
        )
        connection.commit()
    with closing(Store.open(path, checked=False)) as store:
        store.seal()
        manifest = facts(store).model_copy(update={"files": {DATABASE: record(path)}})
    pack(path, manifest, bundle.parent / "tampered.zip")
    return bundle.parent / "tampered.zip"


def pull(repository: Repository, author: str) -> subprocess.CompletedProcess[str]:
    base = repository.git("rev-parse", "main")
    values = {"github.event.pull_request.base.sha": base, "github.event.pull_request.user.login": author}
    return repository.step("check.yml", "Check what was changed", values)


def test_a_good_bundle_ends_on_the_board(repository: Repository, bundle: Path) -> None:
    repository.bring(bundle, "submissions/ann.tiny.zip")
    checked = pull(repository, "Ann")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    report = (repository.home / "report.md").read_text()
    assert report.startswith("### `submissions/ann.tiny.zip` is right")
    assert "proven: " in report and "whether these checkpoints wrote them" in report
    assert repository.step("check.yml", "Render the board as it would be", {}).returncode == 0
    assert "ann.tiny.zip" in (repository.home / "preview" / "index.html").read_text()
    repository.git("checkout", "-q", "main")
    repository.git("merge", "-q", "change")
    assert repository.step("publish.yml", "Install lerpbench", {}).returncode == 0
    assert "-r requirements.txt" in (repository.home / "installed").read_text()
    values = {"vars.URL": "", "github.repository_owner": "ann", "github.event.repository.name": "board"}
    rendered = repository.step("publish.yml", "Render", values)
    assert rendered.returncode == 0, rendered.stderr
    page, *_ = (repository.home / "site" / "points").glob("g1*.html")
    assert f'"og:image" content="https://ann.github.io/board/points/{page.stem}.png"' in page.read_text()
    assert "ann.tiny.zip" in (repository.home / "site" / "index.html").read_text()


def test_a_tampered_bundle_is_refused_by_the_name_of_its_row(repository: Repository, tampered: Path) -> None:
    repository.bring(tampered, "submissions/ann.tiny.zip")
    checked = pull(repository, "ann")
    assert checked.returncode == 1
    report = (repository.home / "report.md").read_text()
    assert report.startswith("### `submissions/ann.tiny.zip` is refused")
    rows = [line for line in report.splitlines() if 'evaluator "sentiment"' in line]
    assert any('prompts "neutral", row 0' in row and "numerator: stored" in row for row in rows), report


@pytest.mark.parametrize(
    ("name", "author", "reason"),
    [
        ("submissions/ben.tiny.zip", "ann", "the name says it is ben's, the change is by ann"),
        ("submissions/deep/ann.zip", "ann", "not a bundle's name"),
        ("submissions/ann`.zip", "ann", "not a bundle's name"),
        ("submissions/ann.md", "ann", "not a bundle's name"),
    ],
)
def test_what_a_stranger_may_not_bring(tmp_path: Path, name: str, author: str, reason: str) -> None:
    (found,) = check(tmp_path, [name], author, 1, "cpu", silently)
    assert not found.right and reason in found.wrong[0]
    assert "`" not in re.sub(r"(?<= )`[^`]*`", "", describe([found])), "a name ends the code that it stands in"


def test_no_bundle_and_links_are_refused_and_a_removal_is_the_authors(tmp_path: Path) -> None:
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "ann.zip").write_text("no zip")
    (tmp_path / "submissions" / "ann.link.zip").symlink_to("/etc/hostname")
    names = ["submissions/ann.zip", "submissions/ann.link.zip", "submissions/ann.gone.zip"]
    no_zip, link, gone = check(tmp_path, names, "ann", 1, "cpu", silently)
    assert "cannot be read as a bundle" in no_zip.wrong[0]
    assert link.wrong == ["a link, not a file"]
    assert gone.right and "was taken away" in describe([gone])
    assert not check(tmp_path, ["submissions/ann.gone.zip"], "ben", 1, "cpu", silently)[0].right


def test_texts_of_a_bundle_stay_inside_code() -> None:
    text = describe([Checked("submissions/ann.zip", ["`@all` | <img src=x>\n# big"])])
    assert text.splitlines()[2] == r"- wrong: `'@all' ¦ <img src=x>\n# big`"


GH = """
echo "$*" >> "{log}"
case "$*" in
  *pulls/7/files*) cat "{files}";;
  *pulls*) echo {number};;
  "run download"*) mkdir -p report; cp "{report}" report/report.md;;
  "pr comment"*) cp comment.md "{log}.comment";;
esac
"""


def comment(repository: Repository, tmp_path: Path, files: str, number: str = "7") -> str | None:
    """What is written under the pull request, by the comment workflow's own step with a stand-in for `gh`."""
    log = tmp_path / "gh.log"
    (tmp_path / "files").write_text(files)
    (tmp_path / "report.md").write_text("### what the check found\n")
    gh = GH.format(log=log, files=tmp_path / "files", report=tmp_path / "report.md", number=number)
    repository.tool("gh", gh)
    run = "github.event.workflow_run."
    values = {"github.token": "t", "github.repository": "ann/board", f"{run}id": "1", f"{run}html_url": "https://run",
              f"{run}head_sha": "a" * 40, f"{run}head_repository.owner.login": "ben",
              f"{run}head_branch": "x; touch hacked"}  # fmt: skip
    done = repository.step("comment.yml", "Comment", values)
    assert done.returncode == 0, done.stderr
    assert not (repository.home / "hacked").exists()
    written = Path(f"{log}.comment")
    return written.read_text() if written.exists() else None


def test_the_comment_says_what_the_check_found(repository: Repository, tmp_path: Path) -> None:
    text = comment(repository, tmp_path, "submissions/ben.zip\n")
    assert text is not None and "### what the check found" in text and "(https://run)" in text


def test_a_check_that_the_change_could_have_written_is_not_repeated(repository: Repository, tmp_path: Path) -> None:
    text = comment(repository, tmp_path, "submissions/ben.zip\n.github/workflows/check.yml\n")
    assert text is not None and "what the check found" not in text and "changes more than `submissions/`" in text


def test_no_comment_on_a_head_that_has_moved_on(repository: Repository, tmp_path: Path) -> None:
    assert comment(repository, tmp_path, "submissions/ben.zip\n", number="") is None


def test_the_workflows_may_do_no_more_than_they_need(repository: Repository) -> None:
    found = {name: workflow(repository.home, name) for name in ("check.yml", "comment.yml", "publish.yml")}
    assert list(found["check.yml"]["on"]) == ["pull_request"]  # never with the rights of the repository
    assert found["check.yml"]["permissions"] == found["publish.yml"]["permissions"] == {"contents": "read"}
    assert "secrets." not in (repository.home / ".github" / "workflows" / "check.yml").read_text()
    assert found["comment.yml"]["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    assert not any("uses" in step for job in found["comment.yml"]["jobs"].values() for step in job["steps"])
    for content in found.values():
        for job in content["jobs"].values():
            for step in job["steps"]:
                assert "timeout-minutes" in job
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/none@v1"))
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] == "false"


def test_a_board_is_made_in_an_empty_folder_only(tmp_path: Path) -> None:
    init(tmp_path / "new")
    text = (tmp_path / "new" / "requirements.txt").read_text()
    assert re.fullmatch(r"lerpbench==[\w.]+\n", text)
    with pytest.raises(UserError, match="expected a new or an empty folder"):
        create(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a new or an empty folder"):
        create(tmp_path / "file")
