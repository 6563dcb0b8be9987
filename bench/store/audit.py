"""What a check of a submission asks: all rows of each kind, and one verdict as it is stored."""

import json
from typing import Any

from bench.schema import Estimate, Prompt, Sampling, TensorDistance
from bench.store.boards import EVALUATION, MIXTURE, evaluation_of, mixture_of
from bench.store.queries import Queries
from bench.store.values import ScoreRow, StoredEvaluation, StoredGeneration, StoredMixture, SumsRow


class AuditQueries(Queries):
    def tables(self) -> list[str]:
        """In alphabetical order."""
        return sorted(name for name in self.db.table_names() if not name.startswith("sqlite_"))

    def count(self, table: str) -> int:
        """`table` is one of `tables()`."""
        return int(self._find(f"SELECT count(*) FROM {table}"))

    def suite_definitions(self) -> dict[str, str]:
        """Name -> definition as JSON, by name."""
        return dict(self._rows("SELECT name, definition FROM suites ORDER BY name"))

    def environments(self) -> dict[str, dict[str, Any]]:
        """Digest -> facts, in the order they were stored."""
        rows = self._rows("SELECT digest, details FROM environments ORDER BY id")
        return {digest: json.loads(details) for digest, details in rows}

    def mixtures(self) -> list[StoredMixture]:
        return [mixture_of(row) for row in self._rows(f"SELECT {MIXTURE} FROM mixtures ORDER BY id")]

    def generations(self) -> list[StoredGeneration]:
        rows = self._rows(
            "SELECT id, key, mixture_id, sampling, n_prompts, n_completions, n_tokens, duration_s FROM generations "
            "ORDER BY id"
        )
        return [
            StoredGeneration(id_, key, mixture, Sampling.model_validate_json(sampling), *numbers)
            for id_, key, mixture, sampling, *numbers in rows
        ]

    def evaluations(self) -> list[StoredEvaluation]:
        return [evaluation_of(row) for row in self._rows(f"SELECT {EVALUATION} FROM evaluations ORDER BY id")]

    def links(self) -> list[tuple[int, int]]:
        """(point id, id of an evaluation that stands there)."""
        return self._rows("SELECT point_id, evaluation_id FROM point_evaluations ORDER BY 1, 2")

    def ledgers(self) -> list[tuple[int, str]]:
        """(suite id, engine) of each overhead ledger."""
        return self._rows("SELECT DISTINCT suite_id, engine FROM overhead_records ORDER BY 1, 2")

    def unreferenced(self) -> list[tuple[str, int]]:
        """(table, id) of rows that stand for nothing: no other row refers to them."""
        users: dict[str, list[str]] = {}
        for table in self.tables():
            for key in self.db.table(table).foreign_keys:
                users.setdefault(key.other_table, []).append(
                    f"SELECT {key.column} FROM {table} WHERE {key.column} IS NOT NULL"
                )
        return [
            (table, id_)
            for table, found in users.items()
            if table not in ("suites", "runs", "points")
            for id_ in self._column(f"SELECT id FROM {table} WHERE id NOT IN ({' UNION '.join(found)}) ORDER BY id")
        ]

    # ------------------------------------------------------------------------------------------ one verdict

    def scores(self, evaluation_id: int) -> list[ScoreRow]:
        rows = self._rows(
            "SELECT name, set_name, row, sample, value, reason FROM scores JOIN metrics ON metrics.id = metric_id "
            "JOIN inputs ON inputs.id = input_id WHERE evaluation_id = ?",
            [evaluation_id],
        )
        return [ScoreRow(*row) for row in rows]

    def statistics(self, evaluation_id: int) -> list[SumsRow]:
        rows = self._rows(
            "SELECT name, set_name, row, text, numerator, denominator, n_scored, n_total FROM statistics "
            "JOIN metrics ON metrics.id = metric_id JOIN inputs ON inputs.id = input_id WHERE evaluation_id = ?",
            [evaluation_id],
        )
        return [SumsRow(*row) for row in rows]

    def estimates(self, evaluation_id: int) -> list[tuple[Estimate, str | None]]:
        """With the transform that leads from the sums to each."""
        names = ("metric", "prompts", "value", "low", "high", "n_scored", "n_total", "reason")
        rows = self._rows(
            "SELECT name, prompts, value, low, high, n_scored, n_total, reason, transform FROM estimates "
            "JOIN metrics ON metrics.id = metric_id WHERE evaluation_id = ?",
            [evaluation_id],
        )
        return [(Estimate(**dict(zip(names, row, strict=True))), transform) for *row, transform in rows]

    def distances_of(self, evaluation_id: int) -> list[TensorDistance]:
        rows = self._rows(
            "SELECT pair, tensor, elements, distance FROM weight_distances WHERE evaluation_id = ? ORDER BY id",
            [evaluation_id],
        )
        return [TensorDistance(pair=p, tensor=t, elements=n, distance=d) for p, t, n, d in rows]

    def items_of(self, evaluation_id: int) -> list[Prompt]:
        """What its sums are about, in the order they were first stored."""
        rows = self._rows(
            "SELECT DISTINCT input_id, set_name, row, text FROM statistics JOIN inputs ON inputs.id = input_id "
            "WHERE evaluation_id = ? ORDER BY input_id",
            [evaluation_id],
        )
        return [Prompt(set=name, row=row, text=text) for _, name, row, text in rows]
