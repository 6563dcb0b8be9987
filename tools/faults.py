"""What survives what: kills, full disks, two writers, flipped bytes and malformed files, counted.

    python -m tools.faults                       # all of it, about ten minutes; `make faults`
    python -m tools.faults --only kills flips    # some of it

Every trial runs the real command in a process of its own, forked from one that has the libraries loaded.  A trial is
right where nothing stored is lost or changed, no number differs from an undisturbed run's, and what a person reads is
one line with exit code 2.  Full disks are small ones made for the purpose (tmpfs), which needs root.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork must not inherit threads

SUITE = """
name: faults
checkpoints: {base: "mini:base", expert: "mini:expert", antiexpert: "mini:antiexpert"}
prompts: {neutral: {source: "mini:prompts/neutral", limit: 3}, positive: {source: "mini:prompts/positive", limit: 2}}
sampling: {samples: 2, max_new_tokens: 5}
methods: [base, {g1: {alpha: [0, 0.5, 1]}}, {dexperts: {alpha: [0.5, 1]}}]
evaluators:
  - sentiment: {model: "mini:sentiment"}
  - perplexity: {model: "mini:judge"}
  - distinct
  - next_token: {words: [good, bad]}
"""
TRAINING = """
name: training
checkpoints: {base: "mini:base"}
finetune:
  learning_rate: [0.0001, 0.0003]
  batch_size: 4
  steps: 3
  experts:
    expert:
      train: {source: "mini:reviews/train", label: [1], limit: 12}
      validation: {source: "mini:reviews/validation", label: [1], limit: 4}
prompts: {neutral: {source: "mini:prompts/neutral", limit: 1}}
methods: [base]
"""
VIEWS = ("results", "completions", "finetuning")


@dataclass
class Tally:
    """Outcomes of one kind of fault, and the first trials that went wrong."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def count(self, right: bool, outcome: str, what: str = "") -> None:
        self.outcomes[outcome if right else f"WRONG: {outcome}"] += 1
        if not right:
            self.wrong.append(f"{outcome}: {what}"[:400])


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: the signal), and what it wrote on standard error."""

    code: int
    told: str

    @property
    def is_one_line(self) -> bool:
        lines = [line for line in self.told.splitlines() if line.startswith("lerpbench: ")]
        return self.code == 2 and len(lines) == 1 and "Traceback" not in self.told


def command(*arguments: object, folder: Path, kill_after_s: float | None = None) -> Ended:
    """Run `lerpbench ARGUMENTS` in a fork of this process; perhaps kill it after a while."""
    log = folder / "stderr.txt"
    child = os.fork()
    if child == 0:
        run_command([str(a) for a in arguments], log)
    if kill_after_s is not None:
        deadline = time.monotonic() + kill_after_s
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


def run_command(arguments: list[str], log: Path) -> None:
    """In the child: the command with its output in files; never returns."""
    import torch

    from bench.cli import main

    torch.set_num_threads(torch.get_num_threads())  # makes torch's pool anew, which threads that ask at once may miss
    code = 70
    try:
        for number, path in ((1, os.devnull), (2, str(log))):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        sys.argv = ["lerpbench", *arguments]
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def views(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """The public views' rows, in an order of their own."""
    with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in VIEWS}
    timed = {"finetuning": slice(0, -2)}  # how long a trial took, and when, are no results
    return {name: sorted((row[timed.get(name, slice(None))] for row in rows), key=repr) for name, rows in found.items()}


def stored(database: Path) -> set[str]:
    """The content keys of all finished work."""
    if not database.exists() or database.stat().st_size == 0:
        return set()
    with contextlib.closing(sqlite3.connect(database)) as connection, contextlib.suppress(sqlite3.OperationalError):
        rows = connection.execute("SELECT key FROM generations UNION SELECT key FROM evaluations")
        return {str(row[0]) for row in rows}
    return set()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------------------------------------- kills


def kill_runs(home: Path, trials: int, rng: random.Random) -> Tally:
    """Kill a run again and again; the run that ends at last equals one that was never disturbed."""
    tally, suite, whole = Tally(), home / "suite.yaml", views(home / "whole.db")
    folder = fresh(home / "kill-run")
    database, site, duration = folder / "r.db", folder / "site", timed(home)
    left = trials
    while left > 0:
        before = stored(database)
        ended = command("run", suite, "--db", database, "--site", site, folder=folder,
                        kill_after_s=rng.uniform(0, duration))  # fmt: skip
        if ended.code == -signal.SIGKILL:
            left -= 1
            tally.count(before <= stored(database), "killed: nothing stored is lost", str(database))
            continue
        tally.count(ended.code == 0 and views(database) == whole, "ended, equal to the undisturbed", ended.told[-300:])
        shutil.rmtree(folder)
        folder.mkdir()
    ended = command("run", suite, "--db", database, "--site", site, folder=folder)
    tally.count(ended.code == 0 and views(database) == whole, "ended, equal to the undisturbed", ended.told[-300:])
    return tally


def kill_training(home: Path, trials: int, rng: random.Random) -> Tally:
    """The same of fine-tuning: the experts' bytes and their records."""
    tally, suite, whole = Tally(), home / "training.yaml", views(home / "trained.db")
    folder = fresh(home / "kill-training")
    experts = {name: data for name, data in files(home / "cache").items() if name.endswith(".safetensors")}
    left = trials
    while left >= 0:
        with environment(LERPBENCH_CACHE=str(folder / "cache")):
            ended = command("finetune", suite, "--db", folder / "r.db", folder=folder,
                            kill_after_s=rng.uniform(0, 6) if left else None)  # fmt: skip
        left -= 1
        if ended.code == -signal.SIGKILL:
            tally.count(True, "killed")
            continue
        made = {name: data for name, data in files(folder / "cache").items() if name.endswith(".safetensors")}
        same = ended.code == 0 and made == experts and views(folder / "r.db") == whole
        tally.count(same, "ended, experts equal byte by byte", ended.told[-300:])
        shutil.rmtree(folder)
        folder.mkdir()
    return tally


def kill_renders(home: Path, trials: int, rng: random.Random) -> Tally:
    """Kill renderings over an old site: every file is whole, the old one or the new one."""
    tally, folder = Tally(), fresh(home / "kill-render")
    command("run", home / "suite.yaml", "--only", "base", "--db", folder / "old.db", "--site", folder / "old",
            folder=folder)  # fmt: skip
    old = files(folder / "old")
    start = time.monotonic()
    command("render", home / "whole.db", "--site", folder / "new", folder=folder)
    duration, new = time.monotonic() - start, files(folder / "new")
    for _ in range(trials):
        site = folder / "site"
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(folder / "old", site)
        ended = command("render", home / "whole.db", "--site", site, folder=folder,
                        kill_after_s=rng.uniform(0.5, 1) * duration)  # fmt: skip
        cut = [p.name for p in site.glob("*.html") if not p.read_text().rstrip().endswith("</html>")]
        for name, data in files(site).items():
            known = name.startswith(".lerpbench") or name.endswith(".html")  # pages tell when they were rendered
            cut += [] if known or data in (old.get(name), new.get(name)) else [name]
        tally.count(not cut, "killed: every file whole" if ended.code else "ended", ", ".join(cut))
    return tally


def kill_submits(home: Path, trials: int, rng: random.Random) -> Tally:
    """Kill bundling: there is a whole bundle or none."""
    tally, folder = Tally(), fresh(home / "kill-submit")
    start = time.monotonic()
    command("submit", "--db", home / "whole.db", "--out", folder / "whole.zip", folder=folder)
    duration, whole = time.monotonic() - start, (folder / "whole.zip").read_bytes()
    for _ in range(trials):
        bundle = folder / "b.zip"
        bundle.unlink(missing_ok=True)
        ended = command("submit", "--db", home / "whole.db", "--out", bundle, folder=folder,
                        kill_after_s=rng.uniform(0.3, 1) * duration)  # fmt: skip
        right = not bundle.exists() or bundle.read_bytes() == whole
        tally.count(right, "killed: a whole bundle or none" if ended.code else "ended", str(bundle))
    return tally


# ---------------------------------------------------------------------------------------------- full disks


def full_disks(home: Path, trials: int, rng: random.Random) -> Tally:
    """Disks that are too small by various amounts: one line, what was stored stays, and more room finishes it."""
    tally, whole, disk = Tally(), views(home / "whole.db"), fresh(home / "disk")
    need = (home / "whole.db").stat().st_size + sum(map(len, files(home / "site").values()))
    for trial in range(trials):
        size = int(need * (trial + 0.5) / trials / 4096 + 1) * 4096
        with small_disk(disk, size):
            ended = command("run", home / "suite.yaml", "--db", disk / "r.db", "--site", disk / "site", folder=home)
            tally.count(
                ended.is_one_line, "one line, exit code 2", f"{size} bytes, code {ended.code}: {ended.told[-300:]}"
            )
            rescued = fresh(home / "rescued")
            for path in disk.glob("r.db*"):
                shutil.copy(path, rescued)
        before = stored(rescued / "r.db")
        ended = command("run", home / "suite.yaml", "--db", rescued / "r.db", "--site", rescued / "site", folder=home)
        kept = before <= stored(rescued / "r.db") and ended.code == 0 and views(rescued / "r.db") == whole
        tally.count(kept, "finished with more room, equal to the undisturbed", ended.told[-300:])
    return tally


def full_caches(home: Path, trials: int, rng: random.Random) -> Tally:
    """The same for fine-tuning's cache and for a bundle: one line, and more room finishes it."""
    tally, disk, whole = Tally(), fresh(home / "disk"), views(home / "trained.db")
    need = sum(map(len, files(home / "cache").values()))
    command("submit", "--db", home / "whole.db", "--out", home / "whole.zip", folder=home)
    bundle = (home / "whole.zip").stat().st_size
    for trial in range(trials):
        share = (trial + 0.5) / trials
        with small_disk(disk, int(need * share / 4096 + 1) * 4096), environment(LERPBENCH_CACHE=str(disk / "cache")):
            rescued = fresh(home / "rescued")
            ended = command("finetune", home / "training.yaml", "--db", rescued / "r.db", folder=home)
            tally.count(ended.is_one_line, "finetune: one line, exit code 2", f"code {ended.code}: {ended.told[-300:]}")
            if (disk / "cache").exists():
                shutil.copytree(disk / "cache", rescued / "cache")
        with environment(LERPBENCH_CACHE=str(rescued / "cache")):
            ended = command("finetune", home / "training.yaml", "--db", rescued / "r.db", folder=home)
        same = ended.code == 0 and views(rescued / "r.db") == whole
        tally.count(same, "finetune: finished with more room", ended.told[-300:])
        with small_disk(disk, int(bundle * share / 4096) * 4096 or 4096):
            ended = command("submit", "--db", home / "whole.db", "--out", disk / "b.zip", folder=home)
            right = ended.is_one_line and not (disk / "b.zip").exists()
            tally.count(right, "submit: one line, no bundle", f"code {ended.code}: {ended.told[-300:]}")
    return tally


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# ---------------------------------------------------------------------------------------------- two writers


def two_writers(home: Path, trials: int, rng: random.Random) -> Tally:
    """Two runs of one suite into one new database at once: both end, and the views are those of one run."""
    tally, whole = Tally(), views(home / "whole.db")
    for _ in range(trials):
        folder = fresh(home / "two")
        children = []
        for k in range(2):
            (folder / str(k)).mkdir()
            child = os.fork()
            if child == 0:
                given = ["run", str(home / "suite.yaml"), "--db", str(folder / "r.db"), "--site", str(folder / str(k))]
                run_command(given, folder / f"{k}.txt")
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        told = "".join((folder / f"{k}.txt").read_text()[-300:] for k in range(2) if codes[k])
        tally.count(codes == [0, 0], "both ended", told)
        tally.count((folder / "r.db").exists() and views(folder / "r.db") == whole, "views of one run", told)
    return tally


# ---------------------------------------------------------------------------------------------- flipped bytes


def flipped_bytes(home: Path, trials: int, rng: random.Random) -> Tally:
    """One byte of a database changed: what is exported is as before, or one line says that it is damaged."""
    tally, folder = Tally(), fresh(home / "flips")
    data = (home / "whole.db").read_bytes()
    command("export", home / "whole.db", "--format", "json", "--out", folder / "whole", folder=folder)
    whole = files(folder / "whole")
    for _ in range(trials):
        place, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        damaged = folder / "whole.db"
        damaged.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        shutil.rmtree(folder / "out", ignore_errors=True)
        ended = command("export", damaged, "--format", "json", "--out", folder / "out", folder=folder)
        if ended.code == 0:
            same = files(folder / "out") == whole
            tally.count(same, "the same rows", f"byte {place}, bit {bit}")
        else:
            tally.count(ended.is_one_line, "one line, exit code 2", f"byte {place}: {ended.told[-300:]}")
    return tally


# ---------------------------------------------------------------------------------------------- malformed files


def malformed(home: Path, trials: int, rng: random.Random) -> Tally:
    """Checkpoints and suites that are broken in known ways: one line each."""
    from bench.suite.checkpoints import MODELS

    tally = Tally()
    for name, spoil in rng.sample(list(SPOILT_MODELS.items()), min(trials, len(SPOILT_MODELS))):
        folder = fresh(home / "spoilt")
        shutil.copytree(MODELS / "expert", folder / "expert")
        spoil(folder / "expert")
        suite = folder / "s.yaml"
        suite.write_text(SUITE.replace('"mini:expert"', str(folder / "expert")))
        ended = command("run", suite, "--db", folder / "r.db", "--site", folder / "site", folder=folder)
        tally.count(ended.is_one_line, "one line, exit code 2", f"{name}: code {ended.code}: {ended.told[-300:]}")
    for name, text in rng.sample(list(SPOILT_SUITES.items()), min(trials, len(SPOILT_SUITES))):
        folder = fresh(home / "spoilt")
        suite = folder / "s.yaml"
        suite.write_bytes(text.encode("utf-8", "surrogatepass"))
        ended = command("run", suite, "--db", folder / "r.db", "--site", folder / "site", folder=folder)
        tally.count(ended.is_one_line, "one line, exit code 2", f"{name}: code {ended.code}: {ended.told[-300:]}")
    return tally


def rewritten(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(change((folder / name).read_text()))

    return spoil


def config(**changes: object) -> Callable[[Path], None]:
    return rewritten("config.json", lambda text: json.dumps(json.loads(text) | changes))


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (path,) = folder.glob("*.safetensors")
        path.write_bytes(change(path.read_bytes()))

    return spoil


def without(pattern: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for path in folder.glob(pattern):
            path.unlink()

    return spoil


def folder_of_weights(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    path.unlink()
    path.mkdir()


def dangling(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    path.unlink()
    path.symlink_to("nowhere.safetensors")


SPOILT_MODELS: dict[str, Callable[[Path], None]] = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config is no JSON": rewritten("config.json", lambda text: text[:40]),
    "config is a list": rewritten("config.json", lambda text: "[]"),
    "config of no architecture": config(architectures=None, model_type="nothing"),
    "config of another width": config(n_embd=96),
    "config of more layers": config(n_layer=9),
    "no tokenizer": without("tokenizer*"),
    "tokenizer is no JSON": rewritten("tokenizer.json", lambda text: text[: len(text) // 2]),
    "tokenizer without vocabulary": rewritten("tokenizer.json", lambda text: "{}"),
    "no weights": without("*.safetensors"),
    "weights are empty": weights(lambda data: b""),
    "weights' header is no JSON": weights(lambda data: data[:8] + b"x" * 64 + data[72:]),
    "weights' header is longer than the file": weights(lambda data: (2**40).to_bytes(8, "little") + data[8:]),
    "weights are cut": weights(lambda data: data[: len(data) * 2 // 3]),
    "weights' link dangles": dangling,
    "weights are a folder": folder_of_weights,
}
SPOILT_SUITES = {
    "no YAML": "name: [",
    "empty": "",
    "a list": "- name",
    "a key twice": SUITE + "\nname: other\n",
    "aliases without end": "a: &a [*a]\n" + SUITE,
    "deep": "title: " + "[" * 5000 + "\n" + SUITE,
    "an empty set name": SUITE.replace("neutral:", '"":', 1),
    "infinite temperature": SUITE.replace("samples: 2", "samples: 2, temperature: .inf"),
    "half a character": SUITE + 'title: "\\ud800"\n',
    "a million points": SUITE.replace("[0, 0.5, 1]", str([i / 7 for i in range(150_000)])),
    "no such checkpoint": SUITE.replace("mini:expert", "./nowhere"),
    "no such prompts": SUITE.replace("mini:prompts/positive", "./nowhere.jsonl"),
    "bytes": "\udcff\udcfe",
}


# ---------------------------------------------------------------------------------------------- all of it


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def timed(home: Path) -> float:
    """Seconds of an undisturbed run."""
    folder = fresh(home / "timed")
    start = time.monotonic()
    command("run", home / "suite.yaml", "--db", folder / "r.db", "--site", folder / "site", folder=folder)
    return time.monotonic() - start


def prepare(home: Path) -> None:
    """The undisturbed run and training that all trials are held against."""
    (home / "suite.yaml").write_text(SUITE)
    (home / "training.yaml").write_text(TRAINING)
    with environment(LERPBENCH_CACHE=str(home / "cache")):
        for given in (
            ("run", home / "suite.yaml", "--db", home / "whole.db", "--site", home / "site"),
            ("finetune", home / "training.yaml", "--db", home / "trained.db"),
        ):
            ended = command(*given, folder=home)
            if ended.code:
                raise SystemExit(f"the undisturbed command failed:\n{ended.told}")


FAULTS: dict[str, tuple[Callable[[Path, int, random.Random], Tally], int]] = {  # the longest first: two go side by side
    "kills of run": (kill_runs, 80),
    "two writers": (two_writers, 30),
    "full disks": (full_disks, 20),
    "full disks of finetune and submit": (full_caches, 6),
    "kills of finetune": (kill_training, 40),
    "flipped bytes": (flipped_bytes, 100),
    "kills of render": (kill_renders, 50),
    "malformed files": (malformed, 40),
    "kills of submit": (kill_submits, 80),
}


def tried(name: str, root: Path, share: float, seed: int) -> tuple[Tally, float]:
    """All trials of one kind, in a folder of its own; and the seconds they took."""
    trial, n = FAULTS[name]
    home = root / name.replace(" ", "-")
    shutil.copytree(root / "base", home)
    start = time.monotonic()
    return trial(home, max(1, round(n * share)), random.Random(seed)), time.monotonic() - start


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[], help="faults with one of these words")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of trials")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    import torch
    import transformers  # noqa: F401  loaded once, for all forks

    import bench.cli  # noqa: F401

    torch.set_num_threads(1)
    wrong = 0
    chosen_kinds = [name for name in FAULTS if not chosen.only or any(word in name for word in chosen.only)]
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, get_context("fork")) as pool:
        prepare(fresh(Path(folder) / "base"))
        running = {pool.submit(tried, name, Path(folder), chosen.share, chosen.seed): name for name in chosen_kinds}
        for done in as_completed(running):
            tally, seconds = done.result()
            counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(tally.outcomes.items()))
            print(f"{running[done]}: {counts} ({seconds:.0f} s)", flush=True)
            for told in tally.wrong[:5]:
                print(f"    {told}", flush=True)
            wrong += len(tally.wrong)
    print(f"{wrong} trials went wrong" if wrong else "every trial went right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
