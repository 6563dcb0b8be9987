"""Boards -> plain files: pages, Plotly's script once, data beside them.  Works from file:// and under any path."""

import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import count
from pathlib import Path, PurePath
from typing import Any

import jinja2
import markupsafe
from markdown_it import MarkdownIt

from bench.schema import UserError
from bench.store.read import Reader
from bench.store.values import ResultRow
from leaderboard import names, numbers, paper
from leaderboard.measure import overhead, protocols, submissions
from leaderboard.measure.agreement import agreements
from leaderboard.measure.comparison import Comparison, compare_level, compare_places
from leaderboard.measure.divergence import rank_at_divergences
from leaderboard.measure.iso import rank_at_targets, reported
from leaderboard.measure.levels import Level, find_levels
from leaderboard.measure.pareto import areas, pareto_places
from leaderboard.measure.rank import PRICE, Row, Series, find_series, rank, steering, time_over_base
from leaderboard.paper.static import palette
from leaderboard.read.board import ALL, Board
from leaderboard.read.merge import load_boards
from leaderboard.read.query import open_stores
from leaderboard.show import completions, figures, frontier, history, share
from leaderboard.show.cells import write_csv
from leaderboard.show.cite import bibtex

MANIFEST = ".lerpbench-site.json"
STAGE = ".lerpbench-site.partial"
PAGES = (
    ("board", "index.html", "Results"),
    ("ranking", "ranking.html", "Ranking"),
    ("compare", "compare.html", "Compare"),
    ("protocols", "protocols.html", "Protocols"),
    ("completions", "completions.html", "Completions"),
    ("overhead", "overhead.html", "Overhead"),
    ("paper", "paper.html", "The paper's figures"),
    ("submissions", "submissions.html", "Submissions"),
    ("runs", "runs.html", "Provenance"),
    ("methodology", "methodology.html", "Methodology"),
)
ASSETS = ("style.css", "site.js", "charts.js", "board.js", "paper.js", "completions.js")


def render(databases: Sequence[Path], site: Path, url: str = "", cards: bool = True) -> list[Board]:
    """Write the leaderboard of these databases into the folder `site`; the boards that are on it.

    `url`: where the site will be read, for what must be named in full: social cards, BibTeX, the badge.  `cards`: draw
    a social card for each point.  Raises UserError for a database that is missing or not ours, and for a folder that
    cannot be written.  Files that an earlier rendering wrote and this one does not are removed; other files in the
    folder are left alone.
    """
    paths = [Path(path) for path in databases]
    with open_stores(paths) as stores:
        boards = load_boards(stores, paths)
        write(build(stores, boards, url, cards), Path(site))
    return boards


def build(
    stores: Sequence[Reader], boards: Sequence[Board], url: str = "", cards: bool = True
) -> dict[str, str | bytes]:
    """The site as relative path -> content."""
    env = environment()
    templates = files("leaderboard") / "templates"
    site: dict[str, str | bytes] = {f"assets/{name}": (templates / name).read_text(encoding="utf-8") for name in ASSETS}
    site["assets/plotly.min.js"] = plotly_script()
    places, url = folders(boards), f"{url.rstrip('/')}/" if url else ""
    for folder, board in zip(places, boards, strict=True):
        twins = [(other.goal.control, where) for where, other in zip(places, boards, strict=True)
                 if other.results is board.results]  # fmt: skip
        site |= board_files(env, stores, board, folder, len(boards), twins if len(twins) > 1 else (),
                            url and url + folder, cards)  # fmt: skip
    if len(boards) != 1:
        shown = [summary(board, folder) for folder, board in zip(places, boards, strict=True)]
        site["index.html"] = env.get_template("index.html").render(boards=shown, root="", page="index")
    return site


def boards_by_folder(databases: Sequence[Path]) -> dict[str, Board]:
    """Each board under the folder that it has in a site."""
    with open_stores(databases) as stores:
        boards = load_boards(stores, databases)
    return dict(zip(folders(boards), boards, strict=True))


def folders(boards: Sequence[Board]) -> list[str]:
    """One board lives at the root; several each in a folder named after suite and engine."""
    if len(boards) == 1:
        return [""]
    names: list[str] = []
    for board in boards:
        name = slug(f"{board.suite}-{board.engine}")
        if len(board.goals) > 1:
            name += "-" + slug(board.goal.control)
        twins = [other for other in boards
                 if (other.suite, other.engine, other.chosen) == (board.suite, board.engine, board.chosen)]  # fmt: skip
        if len(twins) > 1:
            name += "-" + slug(board.databases[0].removesuffix(".db"))
        while f"{name}/" in names:
            name += "-b"
        names.append(f"{name}/")
    return names


def slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text).strip("-.") or "board"


def board_files(
    env: jinja2.Environment,
    stores: Sequence[Reader],
    board: Board,
    folder: str,
    n_boards: int,
    goals: Sequence[tuple[str, str]] = (),
    url: str = "",
    cards: bool = True,
) -> dict[str, str | bytes]:
    """Everything of one board.  `goals`: control and folder of the suite's boards, where it has several."""
    everything = find_series(board)
    series = steering(everything)
    selection = completions.select(stores, board, completions.BUDGET_BYTES // len(board.goals))
    drawn = paper.paper_figures(board, everything)
    pages = [page for page in PAGES if page[0] != "submissions" or len(board.databases) > 1]
    common = {
        "board": board,
        "root": "../" if folder else "",
        "up": "",
        "url": url,
        "several": n_boards > 1,
        "facts": facts(board),
        "json": completions.script_json,
        "pages": pages,
        "price": PRICE,
        "control": board.goal.control,
        "cost": board.goal.price,
        "goals": goals,
        "reported": reported(board),
        "spaces": {s.name: " ".join(s.spaces(board)) for s in series},
        "spent": overhead.spending(board, series),
        "times": {s.name: time_over_base(board, s) for s in series if board.overhead},
    }
    tables = [(prompts, rank(board, series, prompts)) for prompts in (ALL, *board.sets)]
    data = figures.page_data(board, series)
    ranked = rankings(board, series)
    levels = find_levels(board, series)
    still = frontier.picture(board, tables[0][1])
    image = env.get_template("frontier.svg").render(f=still, palette=palette()) if still else ""
    own: dict[str, dict[str, Any]] = {
        "board": {
            "tables": tables,
            "data": data,
            "picture": image,
            "tracks": still.tracks if still else (),
            "uses": ranked[ALL]["up" if board.goal.sign > 0 else "down"],
            "verdicts": [(prompts, verdict(board, rows, prompts)) for prompts, rows in tables],
            "groups": grouped(data["figures"]),
            "families": families(board),
            "choices": sorted({space for one in series for space in one.spaces(board)}),
            "shared": shared_picture(board, tables[0][1], url) if cards else "",
        },
        "ranking": {"rankings": ranked, "agreements": agreements(board)},
        "compare": {"series": series, "levels": compared(board, levels)},
        "protocols": {"lens": protocols.look(board, series, levels)},
        "completions": {"index": completions.index(board, everything, selection), "selection": selection},
        "overhead": {"ledgers": overhead.ledgers(board)},
        "paper": {"figures": drawn, "data": paper.page_data(board, drawn)},
        "submissions": {
            "submissions": submissions.handed_in(board),
            "history": history.over_time(board, tables[0][1]) if len(board.databases) > 1 else None,
            "spreads": {metric: submissions.spreads(board, metric) for metric in board.columns},
        },
        "runs": {},
        "methodology": {"text": methodology()},
    }
    shared = share.pages(env, board, everything, common, url, cards)
    return {
        **{f"{folder}{file}": env.get_template(f"{page}.html").render(**common, **own[page], page=page)
           for page, file, _ in pages},
        f"{folder}results.csv": results_csv(board),
        **({f"{folder}frontier.svg": image} if image else {}),
        f"{folder}cite.bib": bibtex(board, url=url),
        f"{folder}badge.svg": share.badge(env, board, tables[0][1]),
        **{f"{folder}{name}": content for name, content in shared.items()},
        **{f"{folder}texts/{name}": text for name, text in completions.files(stores, board, everything, selection)},
    }  # fmt: skip


def rankings(board: Board, series: Sequence[Series]) -> dict[str, dict[str, Any]]:
    """What the ranking page shows for all prompts and each set: at equal strength, at equal KL, areas, the front."""
    found, control, price = {}, board.goal.control, board.goal.price
    for prompts in (ALL, *board.sets):
        up, down = rank_at_targets(board, series, prompts)
        fronts = {
            name: [(i, board.get(i, control, prompts), board.get(i, price, prompts)) for i in places]
            for name, places in (("up", pareto_places(board, prompts, up=True)),
                                 ("down", pareto_places(board, prompts, up=False)))
        }  # fmt: skip
        found[prompts] = {
            "up": up, "down": down, "divergences": rank_at_divergences(board, series, prompts),
            "areas": areas(board, series, prompts), "fronts": fronts,
        }  # fmt: skip
    return found


def compared(board: Board, levels: Sequence[Level]) -> list[tuple[Level, list[Comparison]]]:
    """Every two methods at every level that has something to compare."""
    pairs = [(level, [c for c in compare_level(board, level) if c.differences]) for level in levels]
    return [(level, found) for level, found in pairs if found]


def methodology() -> markupsafe.Markup:
    text = (files("leaderboard") / "METHODOLOGY.md").read_text(encoding="utf-8")
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    number = count(1)
    box = '<div class="scroll" tabindex="0" role="region" aria-label="Table {}"><table>'
    html = re.sub("<table>", lambda _: box.format(next(number)), html)
    return markupsafe.Markup(html.replace("</table>", "</table></div>"))


def tidy_command(command: str) -> str:
    """A command without the folders of the machine it ran on."""
    return " ".join(source_name(word) for word in command.split())


def grouped(shown: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for figure in shown:
        groups.setdefault(figure["group"], []).append(figure)
    return groups


def families(board: Board) -> dict[str, list[str]]:
    """Metrics by family, plain ones under the empty name, for the chooser of all metrics."""
    found: dict[str, list[str]] = {}
    for metric in figures.of_points(board):
        found.setdefault(names.family(metric) if metric.endswith("]") else "", []).append(metric)
    return found


# --------------------------------------------------------------------------------------------------- words


def shared_picture(board: Board, rows: Sequence[Row], url: str) -> str:
    """The card that a link to the board shows: that of the point with the largest reach."""
    best = next((row.best for row in rows if row.best is not None), None)
    return "" if best is None else url + share.address(board.places[best]).removesuffix(".html") + ".png"


def verdict(board: Board, rows: Sequence[Row], prompts: str = ALL) -> dict[str, Any] | None:
    """Who reaches furthest, who follows, and how far behind on the same prompts; None where nothing is ranked."""
    ranked = [(row, row.best) for row in rows if row.best is not None and row.series.kind != "point"]
    if not ranked or board.base is None:
        return None
    found: list[dict[str, Any]] = [
        {"row": row, "place": board.places[best], "result": board.get(best, board.goal.control, prompts)}
        for row, best in ranked[:2]
    ]
    lead = None
    if len(ranked) > 1:
        paired = compare_places(board, ranked[0][1], ranked[1][1], prompts).differences
        lead = next((d for d in paired if d.metric == board.goal.control), None)
    return {"found": found, "lead": lead, "base": board.get(board.base, board.goal.control, prompts)}


def facts(board: Board) -> list[tuple[str, str]]:
    """What was measured, in a few words each."""
    run = board.runs[-1] if board.runs else None
    env = run.environment if run else {}
    sampling = [json.loads(text) for text in board.protocol.sampling.split(" and ") if text]
    prompts = ", ".join(f"{n} {name}" for name, n in board.protocol.prompts.items())
    total = sum(board.protocol.prompts.values())
    versions = env.get("packages", {})
    shown = ("lerpbench", "torch", "transformers", "vllm")
    found = [
        ("Suite", board.suite),
        ("Engine", f"{board.engine}, {board.protocol.dtype}"),
        ("Prompts", f"{total} ({prompts})" if total else "none"),
        ("Completions", f"{board.n_completions:,} ({board.samples} a prompt and point)" if total else "none stored"),
        ("Sampling", "; ".join(_sampling(s) for s in sampling) or "none"),
        ("Points", f"{len(board.places)} of {len({p.method for p in board.places})} methods{_waiting(board)}"),
        ("Hardware", _hardware(env)),
        ("Versions", ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)),
        ("Commit", str(env.get("commit") or "unknown")),
        ("Measured", _dates(board)),
    ]
    return [(name, value) for name, value in found if value]


def _waiting(board: Board) -> str:
    n = len(set(range(len(board.places))) - {place for place, *_ in board.results})
    return f"; {n} without results" if n else ""


def _sampling(sampling: Mapping[str, Any]) -> str:
    words = {"max_new_tokens": "{} new tokens", "top_p": "top-p {}", "temperature": "temperature {}", "seed": "seed {}"}
    return ", ".join(text.format(f"{sampling[key]:g}") for key, text in words.items() if key in sampling)


def _hardware(env: Mapping[str, Any]) -> str:
    parts = [env.get("device"), env.get("processor"), f"torch threads: {env['threads']}" if "threads" in env else None]
    return ", ".join(str(part) for part in parts if part)


def _dates(board: Board) -> str:
    days = sorted({time[:10] for run in board.runs for time in (run.started_at, run.finished_at) if time})
    return f"{days[0]} to {days[-1]}" if len(days) > 1 else "".join(days)


def signed(value: float) -> str:
    """A difference: a number with its sign, unless it is shown as zero."""
    text = numbers.number(value)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def summary(board: Board, folder: str) -> dict[str, Any]:
    """A board for the list of boards, with what the list may be filtered by."""
    models = {source_name(str(source)) for source in board.definition.get("checkpoints", {}).values()}
    return {
        "board": board, "folder": folder, "facts": facts(board), "engine": [board.engine],
        "attribute": [board.goal.control], "model": sorted(models),
        "method": sorted({place.method for place in board.places}),
        "space": sorted({place.recipe.space for place in board.places}),
    }  # fmt: skip


def source_name(source: str | Mapping[str, str]) -> str:
    """A checkpoint's or file's name without the folders of the machine it lay on; an adapter's beside its base."""
    if not isinstance(source, str):
        return f"{source['base']} + {source_name(source['adapter'])}"
    return PurePath(source).name if source.startswith(("/", "~")) else source


# --------------------------------------------------------------------------------------------------- files


def results_csv(board: Board) -> str:
    out = io.StringIO()
    write_csv(out, ResultRow._fields, board.rows)
    return out.getvalue()


@cache
def environment() -> jinja2.Environment:
    """The templates, which are compiled once: a longer run renders twice."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("leaderboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "num": numbers.number,
        "plain": numbers.plain,
        "signed": signed,
        "short": numbers.short,
        "source_name": source_name,
        "title_of": names.title,
        "command": tidy_command,
        "address": share.address,
    }
    env.globals |= {"rendered_at": rendered_at, "ALL": ALL}
    return env


def rendered_at() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def write(site: Mapping[str, str | bytes], folder: Path) -> None:
    """Write the files, and remove those that an earlier rendering listed and this one lacks.

    All of them are written beside the site first and moved into it when they are whole: a full disk leaves the old
    site as it was, and a kill leaves no file cut off.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: expected a folder for the site, got a file")
    staged = folder / STAGE
    try:
        shutil.rmtree(staged, ignore_errors=True)
        before = _listed(folder)
        listing = json.dumps(sorted(site), indent=0) + "\n"
        for name, content in {**site, MANIFEST: listing}.items():
            for path in (staged / name, folder / name):
                path.parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        for name in (*site, MANIFEST):
            os.replace(staged / name, folder / name)
        for name in sorted(before - set(site)):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the site cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _listed(folder: Path) -> set[str]:
    """What an earlier rendering wrote; only plain relative names are believed."""
    try:
        names = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if not isinstance(names, list):
        return set()
    return {n for n in names if isinstance(n, str) and n and not PurePath(n).is_absolute() and ".." not in n}
