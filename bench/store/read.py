"""The reading half of the store: every question that the project asks a database, answered with values.

The public face, stable, is the views `results`, `completions`, `overhead`, `scores` and `finetuning`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from sqlite_utils import Database

from bench.schema import Completion, Prompt, Recipe, UserError
from bench.store.audit import AuditQueries
from bench.store.boards import BoardQueries
from bench.store.checksums import Damage, damages
from bench.store.opening import connect_for_reading, explained

AFFORDABLE = 64e6  # bytes: about a second

SHORTENED = (
    "(SELECT DISTINCT generation_id, mixture_id FROM points JOIN suites ON suites.id = suite_id "
    "WHERE engine = ? AND (name = ? OR name GLOB ? || '-[0-9]*prompts'))"
)
NAMED = "(evaluator, options) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"


class GenerationCost(NamedTuple):
    recipe: Recipe
    n_tokens: int
    n_completions: int
    duration_s: float


class Reader(BoardQueries, AuditQueries):
    """One results database, opened for reading alone."""

    @classmethod
    def open(cls, path: Path | str, *, checked: bool = True) -> Self:
        """Also where neither file nor folder can be written.  Raises UserError for a missing, foreign or damaged file.

        A file of up to AFFORDABLE bytes is checked from end to end, of a larger one what the pages' numbers come from.
        """
        path = Path(path)
        reader = cls(Database(connect_for_reading(path)), path)
        if checked:
            reader.require_whole(everything=path.stat().st_size <= AFFORDABLE)
        return reader

    def require_whole(self, *, everything: bool) -> None:
        """Raise UserError where rows are not those that were stored."""
        with explained(self.path):
            found = damages(self.db.conn, everything)
        if found:
            self.close()
            told = "; ".join(map(str, found[:3])) + ("; ..." if len(found) > 3 else "")
            raise UserError(f"{self.path}: damaged: {told}. `lerpbench doctor --db {self.path}` says what is lost and "
                            "what is not")  # fmt: skip

    def damages(self) -> list[Damage]:
        """Everything that is not as it was stored."""
        return damages(self.db.conn, True)

    def close(self) -> None:
        self.db.close()

    # ------------------------------------------------------------------------------------------ work by its key

    def generation_id(self, key: str) -> int | None:
        found: int | None = self._find("SELECT id FROM generations WHERE key = ?", [key])
        return found

    def evaluation_id(self, key: str) -> int | None:
        found: int | None = self._find("SELECT id FROM evaluations WHERE key = ?", [key])
        return found

    def prompts_of(self, generation_id: int | None) -> list[tuple[int, Prompt, int]]:
        """A generation's prompts as (input id, prompt, number of samples): set by set as first stored, by row."""
        rows = self._rows(
            "SELECT input_id, set_name, row, inputs.text, COUNT(*) FROM completion_texts "
            "JOIN inputs ON inputs.id = input_id WHERE generation_id = ? GROUP BY input_id ORDER BY input_id",
            [generation_id],
        )
        sets = {name: i for i, name in enumerate(dict.fromkeys(row[1] for row in rows))}
        rows.sort(key=lambda row: (sets[row[1]], row[2]))
        return [(id_, Prompt(set=name, row=row, text=text), n) for id_, name, row, text, n in rows]

    def generated(self, generation_id: int) -> tuple[list[Prompt], list[Completion]]:
        """The prompts of a generation and its completions, ordered by prompt, then sample."""
        prompts = self.prompts_of(generation_id)
        place = {input_id: i for i, (input_id, _, _) in enumerate(prompts)}
        found: list[list[Completion]] = [[] for _ in prompts]
        for input_id, *completion in self._each(
            "SELECT input_id, sample, text, n_tokens, finish_reason FROM completion_texts WHERE generation_id = ? "
            "ORDER BY input_id, sample",
            [generation_id],
        ):
            found[place[input_id]].append(Completion(place[input_id], *completion))
        return [prompt for _, prompt, _ in prompts], [completion for group in found for completion in group]

    # ------------------------------------------------------------------------------------------ what work took

    def generation_costs(self, suite: str, engine: str) -> list[GenerationCost]:
        """Of a suite's stored points on an engine, shortened runs (`suite-4prompts`) included."""
        rows = self._rows(
            f"SELECT recipe, n_tokens, n_completions, duration_s FROM {SHORTENED} AS found "
            "JOIN generations ON generations.id = found.generation_id JOIN mixtures ON mixtures.id = found.mixture_id",
            [engine, suite, suite],
        )
        return [GenerationCost(Recipe.model_validate_json(recipe), *numbers) for recipe, *numbers in rows]

    def judging_s(self, suite: str, engine: str, asked: Sequence[tuple[str, str]]) -> float:
        """Seconds a completion: for each evaluator, by name and options, the mean over what it judged; their sum."""
        found = self._find(
            "SELECT SUM(spent / judged) FROM (SELECT SUM(evaluations.duration_s) AS spent, SUM(n_completions) AS "
            f"judged FROM {SHORTENED} AS found JOIN evaluations USING (generation_id) JOIN generations "
            f"ON generations.id = generation_id WHERE {NAMED} GROUP BY evaluator, options)",
            [engine, suite, suite, json.dumps(asked)],
        )
        return found or 0.0

    def probing_s(self, suite: str, engine: str, asked: Sequence[tuple[str, str]]) -> float:
        """Seconds a mixture, as `judging_s`."""
        found = self._find(
            f"SELECT SUM(mean) FROM (SELECT AVG(duration_s) AS mean FROM {SHORTENED} AS found "
            "JOIN evaluations ON evaluations.mixture_id = found.mixture_id AND evaluations.generation_id IS NULL "
            f"WHERE {NAMED} GROUP BY evaluator, options)",
            [engine, suite, suite, json.dumps(asked)],
        )
        return found or 0.0
