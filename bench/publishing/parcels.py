"""Databases -> the files of each repository that they are published in.  Nothing here reaches the network.

space: the site, as a static Space.  dataset: each suite as a bundle that `lerpbench verify` checks, and the views
`results` and `overhead` as Parquet.  model: `.eval_results` of a checkpoint that was measured as it is, in the form
that the hub shows on a model's page (https://huggingface.co/docs/hub/eval-results).  branch: the site, for GitHub
Pages.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.schema import UserError
from bench.submissions.bundle import SUFFIX, submit
from leaderboard.numbers import between
from leaderboard.read.board import Board, Place
from leaderboard.show.card import hub_models
from leaderboard.show.export import export
from leaderboard.show.render import boards_by_folder, render, slug

Kind = Literal["space", "dataset", "model", "branch"]
FRONT = "README.md"
TAGS = ["lerpbench", "benchmark", "controllable-text-generation", "model-merging"]


@dataclass(frozen=True)
class Parcel:
    """What one repository on the hub, or one branch, gets in one commit: every file of a folder here."""

    kind: Kind
    target: str
    folder: Path
    message: str

    @property
    def files(self) -> list[str]:
        """Paths in the folder, and there."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


def branch(name: str, databases: Sequence[Path], folder: Path, url: str = "") -> Parcel:
    """The site of these databases for GitHub Pages, made in `folder`; `url`: where it will be read."""
    render(databases, folder, url)
    (folder / ".nojekyll").touch()  # files that begin with a dot are served too
    return Parcel("branch", name, folder, "The site, by lerpbench publish")


def space(repository: str, databases: Sequence[Path], folder: Path, url: str = "") -> Parcel:
    """The site of these databases as a static Space, made in `folder`; `url`: where it will be read."""
    boards = render(databases, folder, url)
    title = boards[0].title if len(boards) == 1 else "lerpbench leaderboards"
    front = {"title": title, "sdk": "static", "colorFrom": "blue", "colorTo": "red", "tags": TAGS, "pinned": False}
    text = f"\n# {title}\n\nPlain files, made by `lerpbench render` and sent by `lerpbench publish`.\n"
    (folder / FRONT).write_text(_front_matter(front) + text, encoding="utf-8")
    return Parcel("space", repository, folder, f"{title}: the site")


def dataset(repository: str, databases: Sequence[Path], suite: str | None, folder: Path) -> Parcel:
    """A bundle for each database, bundles as they are, and their rows as tables.

    Raises UserError where a suite is not finished.
    """
    bundles = folder / "bundles"
    bundles.mkdir(parents=True)
    for source in databases:
        if source.suffix == SUFFIX:
            shutil.copyfile(source, bundles / source.name)
        else:
            submit(source, suite, bundles / f"{source.stem}.lerpbench{SUFFIX}")
    tables = [export(databases, "parquet", folder / f"{view}.parquet", view)[0] for view in ("results", "overhead")]
    names = ", ".join(dict.fromkeys(board.suite for board in boards_by_folder(databases).values()))
    front = {
        "pretty_name": f"lerpbench results: {names}",
        "tags": TAGS,
        "configs": [{"config_name": t.stem, "data_files": t.name, "default": t.stem == "results"} for t in tables],
    }
    text = f"""
# lerpbench results: {names}

`bundles/` holds what was measured: each completion and each verdict. `lerpbench verify bundles/NAME` checks that the
scores follow from the completions, and says what it cannot prove. The tables are the views `results` and `overhead`.
"""
    (folder / FRONT).write_text(_front_matter(front) + text, encoding="utf-8")
    return Parcel("dataset", repository, folder, f"Results of {names}")


def models(databases: Sequence[Path], dataset_id: str, page: str, folder: Path) -> list[Parcel]:
    """`.eval_results` for each checkpoint on the hub that was measured as it is.

    `dataset_id`: the dataset repository that the results belong to; `page`: where a reader sees them.  Raises UserError
    where no checkpoint comes from the hub.
    """
    suites: dict[str, list[str]] = {}
    for board in boards_by_folder(databases).values():
        for name, repository in hub_models(board).items():
            if entries := _entries(board, name, dataset_id, page):
                path = folder / repository / ".eval_results" / f"lerpbench-{slug(board.suite)}-{board.engine}.yaml"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_yaml(entries), encoding="utf-8")
                suites.setdefault(repository, []).append(board.suite)
    if not suites:
        raise UserError("--models: no checkpoint of these databases is a model on the hub that was measured as it is")
    return [
        Parcel("model", repository, folder / repository, f"Results of lerpbench: {', '.join(dict.fromkeys(names))}")
        for repository, names in sorted(suites.items())
    ]


def _entries(board: Board, name: str, dataset_id: str, page: str) -> list[dict[str, Any]]:
    """One entry a metric of the checkpoint alone: value over all prompts, the interval and counts as its notes."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    place = next((i for i, place in enumerate(board.places) if _is_alone(place, name)), None)
    if place is None:
        return []
    dates = [run.finished_at or run.started_at for run in board.runs]
    entries = []
    for metric, info in board.metrics.items():
        found = board.get(place, metric)
        if found is None or found.value is None or not info.of_text:
            continue
        span = f"95 % interval {between(found)}; " if between(found) else ""
        notes = f"{span}{found.n_scored} of {found.n_total} scored; {board.engine}, {board.protocol.dtype}"
        entry = EvalResultEntry(dataset_id, f"{board.suite}-{metric}", float(f"{found.value:.6g}"), notes=notes)
        entries.append(replace(entry, date=max(dates, default=None), source_url=page, source_name="lerpbench"))
    return eval_result_entries_to_yaml(entries)


def _is_alone(place: Place, name: str) -> bool:
    return place.recipe.space == "weights" and dict(place.recipe.coefficients) == {name: 1.0}


def _front_matter(values: Mapping[str, Any]) -> str:
    return f"---\n{_yaml(dict(values))}---\n"


def _yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)
