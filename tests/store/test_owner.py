"""The store owns SQL: no module outside bench/store/ holds a statement, runs one or reaches for the database."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
STATEMENT = re.compile(
    r"\s*(SELECT\s.+\sFROM|INSERT\s+(OR \w+ )?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM"
    r"|CREATE\s+(TABLE|VIEW|INDEX)|PRAGMA\s)",
    re.DOTALL,
)
CALLS = {"execute", "executemany", "executescript"}


def violations(source: str) -> list[int]:
    """Lines with a call that runs a text, a reach through an attribute `db`, an import of SQLite, or a statement."""
    found = []
    for node in ast.walk(ast.parse(source)):
        runs = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS
        sql = isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENT.match(node.value)
        text = node.args[0] if runs and node.args else None  # type: ignore[attr-defined]
        if (runs and isinstance(text, ast.Constant | ast.JoinedStr)) or sql:
            found.append(node.lineno)  # type: ignore[attr-defined]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "db":
            found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "sqlite_utils":
            found.append(node.lineno)
    return found


def test_no_module_outside_the_store_holds_sql() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for package in ("lerpbench", "bench", "methods", "evaluators", "leaderboard")
        for path in (ROOT / package).rglob("*.py")
        if ROOT / "bench" / "store" not in path.parents
        for line in violations(path.read_text(encoding="utf-8"))
    }
    assert not found


def test_the_search_finds_what_it_is_for() -> None:
    assert violations("store.db.table('x')") == [1]
    assert violations("connection.execute(f'SELECT {a} FROM b')") == [1]
    assert violations("sql = 'DELETE FROM points'\nrun.execute(engine, judges)") == [1]
    assert violations('"""Select the best from a grid."""\nrun.execute(engine)') == []
