"""pytest-benchmark's JSON (`pytest --benchmark-json FILE`) -> lines of the overhead ledger.

A benchmark says what it timed in its `extra_info`: `method`, `batch_size`, `new_tokens`, `engine`, `metric`,
`ratio_to_base` (its time over the base's, with `ratio_low`, `ratio_high`) and `tokens_per_s`; without them it stands
under its own name, with the seconds of a call.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.overhead_estimate import median_interval
from bench.schema import OverheadRecord, UserError

ENGINE = "pytest-benchmark"  # for benchmarks that name no engine
METRIC = "call_s"
RATIOS = ("ratio_to_base", "ratio_low", "ratio_high")
KNOWN = ("method", "batch_size", "new_tokens", "engine", "metric", "tokens_per_s", *RATIOS)


def read_benchmarks(path: Path) -> tuple[dict[str, list[OverheadRecord]], dict[str, Any]]:
    """Engine -> records, and the facts of the machine that the file tells.  Raises UserError for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        facts = {key: content[key] for key in ("machine_info", "commit_info", "datetime", "version")}
        benchmarks = list(content["benchmarks"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected the JSON that `pytest --benchmark-json FILE` writes") from error
    found: dict[str, list[OverheadRecord]] = {}
    for place, entry in enumerate(benchmarks):
        try:
            engine = str(entry["extra_info"].get("engine", ENGINE))
            found.setdefault(engine, []).extend(_records(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: benchmarks[{place}]: {type(error).__name__}: {error}") from error
    return found, facts


def _records(entry: Mapping[str, Any]) -> list[OverheadRecord]:
    """The seconds of a call, with the ratio that the benchmark measured itself; and tokens/s where it tells them."""
    info: Mapping[str, Any] = entry["extra_info"]
    seconds, stats = _seconds(entry["stats"])
    details = {
        "benchmark": entry["fullname"],
        "group": entry.get("group"),
        "stats": stats,
        "extra_info": {key: value for key, value in info.items() if key not in KNOWN},
    }
    place = {
        "method": str(info.get("method", entry["name"])),
        "batch_size": int(info.get("batch_size", 0)),
        "new_tokens": int(info.get("new_tokens", 0)),
        "n_rounds": int(entry["stats"]["rounds"]),
        "details": details,
    }
    ratios = {key: info.get(key) for key in RATIOS}
    value, low, high = seconds
    found = [OverheadRecord(**place, metric=str(info.get("metric", METRIC)), value=value, low=low, high=high, **ratios)]
    if "tokens_per_s" in info:
        found.append(OverheadRecord(**place, metric="tokens_per_s", value=float(info["tokens_per_s"])))
    return found


def _seconds(stats: Mapping[str, Any]) -> tuple[tuple[float, float | None, float | None], dict[str, Any]]:
    """Median and interval over the rounds; without `--benchmark-save-data` the file has no rounds, so no interval."""
    kept = {key: stats[key] for key in ("min", "max", "mean", "median", "stddev", "iqr") if key in stats}
    if stats.get("data"):
        return median_interval([float(x) for x in stats["data"]]), kept
    return (float(stats["median"]), None, None), kept
