"""The report of a dry run: rows, rows that cannot run, tokens and cost by model. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.batch.row import BadRow
from headrace.cli.batch.figures import counted, money
from headrace.cli.batch.summary import SummaryLine
from headrace.cli.shared.terminal import one_line
from headrace.pricing.prices import PriceTable
from headrace.types import Usage

_MOST_SHOWN = 20
"""Rows that cannot run and are shown."""
_ANSWER = 1000
"""Tokens of each answer in the estimate of rows without ``max_output_tokens``."""
_PRICED = 1000
"""Tokens of the prompt whose price is looked up. So few have the price of a short prompt."""


class ModelFigures(msgspec.Struct):
    """The rows of one model. ``capped_rows``: those with ``max_output_tokens``. ``capped_tokens``: the sum of these bounds."""

    rows: int = 0
    input_tokens: int = 0
    capped_rows: int = 0
    capped_tokens: int = 0
    embeddings: int = 0


class DryRun:
    """What was found in the input so far. ``price_share``: of the standard price, below 1 if the provider takes its time."""

    def __init__(self, prices: PriceTable, price_share: float = 1.0) -> None:
        self._prices = prices
        self._price_share = price_share
        self.rows = 0
        self.bad = 0
        self.first_bad: list[BadRow] = []
        self.models: dict[tuple[str, str], ModelFigures] = {}

    def note_bad(self, row: BadRow) -> None:
        """Note a row that cannot run."""
        self.rows += 1
        self.bad += 1
        if len(self.first_bad) < _MOST_SHOWN:
            self.first_bad.append(row)

    def note(self, model: tuple[str, str], input_tokens: int, most_output: int | None, *, embeds: bool) -> None:
        """Note a row that can run. ``model``: provider and model. ``most_output``: tokens of its answer at most."""
        self.rows += 1
        figures = self.models.get(model)
        if figures is None:
            figures = self.models[model] = ModelFigures()
        figures.rows += 1
        figures.input_tokens += input_tokens
        if embeds:
            figures.embeddings += 1
        elif most_output is not None:
            figures.capped_rows += 1
            figures.capped_tokens += most_output

    def cost(self, model: tuple[str, str], input_tokens: int, output_tokens: int) -> float | None:
        """Return what tokens of a model cost in US dollars, None if its price is not known.

        The prices of long prompts are left out.
        """
        prompt = Usage(input_tokens=_PRICED, output_tokens=0, source="provider")
        answer = Usage(input_tokens=0, output_tokens=_PRICED, source="provider")
        each = [self._prices.cost(*model, usage) for usage in (prompt, answer)]
        if each[0] is None or each[1] is None:
            return None
        return (input_tokens * each[0] + output_tokens * each[1]) * self._price_share / _PRICED


def report_lines(report: DryRun) -> Iterator[SummaryLine]:
    """Yield the lines of the report for people."""
    good = report.rows - report.bad
    if report.bad:
        yield SummaryLine(f"{good:,} of {counted(report.rows, 'row')} can run, {report.bad:,} cannot:", True)
        for row in report.first_bad:
            yield SummaryLine(f"  line {row.number} ({one_line(row.id)}): {one_line(row.text)}", True)
        if report.bad > len(report.first_bad):
            yield SummaryLine(f"  and {report.bad - len(report.first_bad):,} more", True)
    else:
        yield SummaryLine(f"{counted(good, 'row')} can run")
    for model, figures in sorted(report.models.items(), key=lambda item: (-item[1].rows, item[0])):
        yield SummaryLine(f"  {one_line('/'.join(model))}: {_model_words(report, model, figures)}")
    yield SummaryLine("Nothing was sent. Tokens are estimated: one for four bytes of a prompt.")


def _model_words(report: DryRun, model: tuple[str, str], figures: ModelFigures) -> str:
    words = f"{counted(figures.rows, 'row')}, about {figures.input_tokens:,} tokens of prompts"
    prompts = report.cost(model, figures.input_tokens, 0)
    if prompts is None:
        return f"{words}; its price is not known"
    words += f" for {money(prompts)}"
    answers = figures.rows - figures.embeddings
    if not answers:
        return words
    if figures.capped_rows == answers:
        most = report.cost(model, 0, figures.capped_tokens) or 0.0
        return f"{words}; answers of at most {figures.capped_tokens:,} tokens for {money(most)}; {money(prompts + most)} in all at most"
    each = report.cost(model, 0, answers * _ANSWER) or 0.0
    return f"{words}; answers of {_ANSWER:,} tokens each would cost {money(each)} more"


def report_object(report: DryRun) -> dict[str, Any]:
    """Return the report for programs. Costs are in US dollars, None if the price of a model is not known."""
    return {
        "rows": report.rows,
        "bad": report.bad,
        "first_bad": [
            {"line": row.number, "id": row.id, "argument": row.argument, "problem": row.problem}
            for row in report.first_bad
        ],
        "models": [
            {
                "provider": model[0],
                "model": model[1],
                "rows": figures.rows,
                "input_tokens": figures.input_tokens,
                "input_cost": report.cost(model, figures.input_tokens, 0),
                "rows_with_max_output_tokens": figures.capped_rows,
                "max_output_tokens": figures.capped_tokens,
                "max_output_cost": report.cost(model, 0, figures.capped_tokens),
            }
            for model, figures in sorted(report.models.items())
        ],
    }
