"""What is published arrives: files, sizes, pull requests; a second time replaces the first; errors are one line."""

import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from urllib.request import urlopen, urlretrieve

import pytest
import yaml
from huggingface_hub import EvalResultEntry
from huggingface_hub._eval_results import parse_eval_result_entries
from PIL import Image
from standin import TOKEN, Hub, Lerpbench
from webdriver import Browser, browser, why_missing

from bench.publishing import parcels
from bench.publishing.branch import commit_site, pages_address
from bench.publishing.hub import site_address
from bench.schema import UserError
from leaderboard.show.render import boards_by_folder


def refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 2, result.stderr + result.stdout
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("lerpbench: ") and message in line, line


def test_site_bundle_and_results_arrive(hub: Hub, lerpbench: Lerpbench, on_the_hub: Path, tmp_path: Path) -> None:
    asked = (on_the_hub, "--space", "ann/board", "--dataset", "ann/results", "--models")
    planned = lerpbench("publish", *asked, "--dry-run", token="")
    assert planned.returncode == 0, planned.stderr
    assert hub.asked == []

    hub.repositories |= {("model", f"ann/{name}"): {"config.json": b"{}"} for name in ("base", "expert", "antiexpert")}
    sent = lerpbench("publish", *asked)
    assert sent.returncode == 0, sent.stderr
    assert f"{hub.url}/spaces/ann/board" in sent.stdout
    site, data = hub.files("space", "ann/board"), hub.files("dataset", "ann/results")
    assert hub.settings["space", "ann/board"]["sdk"] == "static"
    assert yaml.safe_load(site["README.md"].decode().split("---")[1])["sdk"] == "static"
    assert b"<h1>tiny</h1>" in site["index.html"]
    for name, content in {**site, **data}.items():
        if name != ".gitattributes" and not content.startswith(b"<!doctype"):  # pages say when they were made
            assert f"  {len(content):>12,}  {name}\n" in planned.stdout
    with zipfile.ZipFile(io.BytesIO(data["bundles/tiny.lerpbench.zip"])) as bundle:
        assert bundle.namelist() == ["manifest.json", "results.db"]
    configs = yaml.safe_load(data["README.md"].decode().split("---")[1])["configs"]
    assert {config["data_files"] for config in configs} == {"results.parquet", "overhead.parquet"} <= set(data)

    assert hub.files("model", "ann/base") == {"config.json": b"{}"}  # a pull request, no commit
    board = boards_by_folder([on_the_hub])[""]
    offered = dict(hub.pull_requests)
    assert sorted(offered) == ["ann/antiexpert", "ann/base", "ann/expert"]
    entries = parse_eval_result_entries(
        yaml.safe_load(offered["ann/base"][".eval_results/lerpbench-tiny-transformers.yaml"])
    )
    (perplexity,) = [entry for entry in entries if entry.task_id == "tiny-perplexity"]
    assert isinstance(perplexity, EvalResultEntry) and perplexity.dataset_id == "ann/results"
    assert board.base is not None
    assert perplexity.value == pytest.approx(board.value(board.base, "perplexity"), rel=1e-5)
    assert perplexity.notes is not None and "15 of 15 scored" in perplexity.notes
    assert perplexity.source_url == f"{hub.url}/spaces/ann/board"


@pytest.fixture
def demo(measured: Path) -> Path:
    """The tiny suite's database, or that of `make demo` where LERPBENCH_DEMO names it."""
    return Path(os.environ.get("LERPBENCH_DEMO", measured)).resolve()


@pytest.mark.skipif(why_missing() is not None, reason=str(why_missing()))
def test_what_was_published_opens_in_a_browser_and_is_verified(
    hub: Hub, lerpbench: Lerpbench, demo: Path, tmp_path: Path
) -> None:
    """The site is read from the Space, to a point's card and completions; the bundle from the dataset is proven right,
    and renders the same board."""
    address = f"{hub.url}/pages/ann/board"
    sent = lerpbench("publish", demo, "--space", "ann/board", "--dataset", "ann/results", "--url", address)
    assert sent.returncode == 0, sent.stderr
    title = boards_by_folder([demo])[""].title
    with browser() as chromium:
        chromium.open(f"{address}/")
        chromium.wait("document.querySelectorAll('.js-plotly-plot').length > 0")
        assert chromium.run("return document.querySelector('h1').textContent") == title
        shown(chromium, "front")
        chromium.run("document.querySelector('td.at a.to').click()")
        chromium.wait("document.querySelector('.copied') && document.readyState === 'complete'")
        card = chromium.run("return document.querySelector('meta[property=\"og:image\"]').content")
        with urlopen(card) as answer:
            assert answer.headers["Content-Type"] == "image/png"
            assert Image.open(io.BytesIO(answer.read())).size == (1200, 630)
        shown(chromium, "point")
        chromium.run("[...document.querySelectorAll('nav a')].find((a) => a.textContent === 'Completions').click()")
        chromium.wait("document.querySelectorAll('.text').length > 0")
        assert [line for line in chromium.console() if "favicon" not in line] == []
    bundle = tmp_path / f"{demo.stem}.lerpbench.zip"
    urlretrieve(f"{hub.url}/datasets/ann/results/resolve/main/bundles/{bundle.name}", bundle)
    verified = lerpbench("verify", bundle, "--sample", 1)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    (again,) = boards_by_folder([bundle]).values()
    (board,) = boards_by_folder([demo]).values()
    assert (again.title, again.results) == (title, board.results)


def shown(chromium: Browser, name: str) -> None:
    """A screenshot, where somebody wants to look."""
    if folder := os.environ.get("LERPBENCH_SCREENSHOTS"):
        chromium.screenshot(Path(folder) / f"{name}.png", whole=True)


def test_a_second_site_replaces_the_first_and_leaves_the_rest(hub: Hub, lerpbench: Lerpbench, measured: Path) -> None:
    assert lerpbench("publish", measured, "--space", "ann/board").returncode == 0
    site = hub.files("space", "ann/board")
    site |= {"old.html": b"an earlier page", "mine.txt": b"not a page"}
    listing = ".lerpbench-site.json"
    site[listing] = site[listing].replace(b"[", b'["old.html",', 1)
    again = lerpbench("publish", measured, "--space", "ann/board")
    assert again.returncode == 0, again.stderr
    after = hub.files("space", "ann/board")
    assert "old.html" not in after and after["mine.txt"] == b"not a page" and "index.html" in after


def test_where_a_site_will_be_read(tmp_path: Path) -> None:
    assert site_address("Ann_B/My.Board") == "https://ann-b-my-board.static.hf.space"
    assert pages_address(tmp_path) == ""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for origin, address in (
        ("https://github.com/Ann/board.git", "https://ann.github.io/board"),
        ("git@github.com:Ann/board", "https://ann.github.io/board"),
        ("ssh://git@github.com/ann/ann.github.io", "https://ann.github.io"),
        ("https://example.org/ann/board", ""),
    ):
        subprocess.run(["git", "config", "remote.origin.url", origin], cwd=tmp_path, check=True)
        assert pages_address(tmp_path) == address, origin


def test_mistakes_are_one_line(hub: Hub, lerpbench: Lerpbench, measured: Path, tmp_path: Path) -> None:
    refused(lerpbench("publish", measured), "say where: --space OWNER/NAME")
    refused(lerpbench("publish", measured, "--space", "ann/b", "--models"), "--models needs --dataset")
    refused(lerpbench("publish", tmp_path / "absent.db", "--space", "ann/b"), "no such database")
    refused(lerpbench("publish", measured, "--dataset", "ann/d", "--models"), "no checkpoint of these databases is a")
    refused(lerpbench("publish", measured, "--space", "ann/b/c"), "expected OWNER/NAME")
    refused(lerpbench("publish", measured, "--space", "ann/b", token=""), "`hf auth login`")
    refused(lerpbench("publish", measured, "--space", "ann/b", token=TOKEN + "x"), "the hub refused: ")
    refused(lerpbench("publish", measured, "--space", "ann/b", HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE=0")
    refused(
        lerpbench("publish", measured, "--space", "ann/b", HF_ENDPOINT="http://127.0.0.1:9"), "could not be reached"
    )
    refused(lerpbench("publish", measured, "--branch", "gh-pages"), "not a git repository")
    assert hub.repositories == {}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_branch_holds_the_site_and_its_history(measured: Path, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        done = subprocess.run(["git", *who, *arguments], cwd=home, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    home = tmp_path / "repository"
    home.mkdir()
    git("init", "-q", "-b", "main")
    git("config", "user.name", "Ann")
    git("config", "user.email", "ann@example.org")
    (home / "work.txt").write_text("under way")
    git("add", "work.txt")
    parcel = parcels.branch("gh-pages", [measured], tmp_path / "site")
    first = commit_site(parcel, home)
    assert set(git("ls-tree", "-r", "--name-only", "gh-pages").splitlines()) == set(parcel.files)
    assert ".nojekyll" in parcel.files
    (tmp_path / "site" / "overhead.html").unlink()
    second = commit_site(parcel, home)
    assert git("rev-list", "gh-pages").splitlines() == [second, first]
    assert "overhead.html" not in git("ls-tree", "-r", "--name-only", "gh-pages").splitlines()
    assert git("status", "--porcelain") == "A  work.txt"  # the tree and the index are as they were
    with pytest.raises(UserError, match="branch main is checked out here"):
        commit_site(parcels.Parcel("branch", "main", parcel.folder, "x"), home)
