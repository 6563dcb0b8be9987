"""A site -> a commit on a branch of the git repository here, for GitHub Pages; the working tree is not touched."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from bench.publishing.parcels import Parcel
from bench.schema import UserError

GITHUB = re.compile(r"(?:https://|git@|ssh://git@)github\.com[:/](?P<owner>[\w-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?")


def pages_address(repository: Path) -> str:
    """Where GitHub Pages shows a site of the repository here; nothing where its origin is no GitHub repository."""
    command = ["git", "remote", "get-url", "origin"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    found = GITHUB.fullmatch(done.stdout.strip())
    if done.returncode or found is None:
        return ""
    owner, name = found["owner"].lower(), found["name"]
    return f"https://{owner}.github.io" + ("" if name.lower() == f"{owner}.github.io" else f"/{name}")


def commit_site(parcel: Parcel, repository: Path) -> str:
    """Make the parcel the whole content of its branch, after what the branch held before; the commit's SHA.

    Raises UserError where there is no git repository, and for a branch that is checked out.
    """
    branch = parcel.target
    with tempfile.TemporaryDirectory() as folder:
        here = os.environ | {"GIT_INDEX_FILE": str(Path(folder) / "index"), "GIT_LITERAL_PATHSPECS": "1"}

        def git(*arguments: str, fails: bool = False, cwd: Path = repository) -> str:
            command = ["git", *arguments]
            done = subprocess.run(command, cwd=cwd, env=here, capture_output=True, text=True, check=False)
            if done.returncode and not fails:
                reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
                raise UserError(f"branch {branch}: git {arguments[0]} failed: {reason}")
            return done.stdout.strip() if not done.returncode else ""

        if git("symbolic-ref", "-q", "HEAD", fails=True) == f"refs/heads/{branch}":
            raise UserError(f"branch {branch} is checked out here; give one that only holds the site, such as gh-pages")
        git("check-ref-format", "--branch", branch)
        home = git("rev-parse", "--absolute-git-dir")
        git("--git-dir", home, "--work-tree", ".", "add", "--all", "--force", ".", cwd=parcel.folder)
        tree = git("write-tree")
        before = git("rev-parse", "-q", "--verify", f"refs/heads/{branch}", fails=True)
        parent = ["-p", before] if before else []
        made = git("commit-tree", tree, *parent, "-m", parcel.message)
        git("update-ref", f"refs/heads/{branch}", made, before or "0" * len(made))
        return made
