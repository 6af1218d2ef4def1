"""RowCheck: checks the arguments of a row as a run would, and tells the row's provider and model. Sends nothing. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from headrace.arguments.checked_request import (
    RequestContext,
    build_embedding_request,
    build_options,
    build_request,
    check_names,
)
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.batch.row import BadRow, Row
from headrace.errors import InvalidRequestError
from headrace.runs.typed_answer import typed_answer_of


class RowCheck:
    """Checks rows. ``providers``: the names of all providers. ``takes_any_provider``: the engine may have others."""

    def __init__(self, providers: Collection[str], *, takes_any_provider: bool) -> None:
        self._context: RequestContext = {
            "trace_id": "tr_",
            "providers": tuple(providers),
            "takes_any_provider": takes_any_provider,
            "traceparent": None,
        }

    def checked(self, row: Row) -> tuple[str, str] | BadRow:
        """Return the row's provider and model, or what is wrong with its arguments."""
        arguments: Any = {**row.arguments}
        response_type = arguments.pop("response_type", None)
        try:
            if row.kind == "embeddings":
                check_names(arguments, EmbeddingArguments)
                build_options(arguments)
                request = build_embedding_request(arguments, **self._context)
            else:
                check_names(arguments, RunArguments)
                build_options(arguments)
                answer_format = (
                    None if response_type is None else typed_answer_of(response_type).response_type.response_format
                )
                request = build_request(
                    arguments, stream=False, original_paths={}, answer_format=answer_format, **self._context
                )
        except InvalidRequestError as error:
            return BadRow(row.number, row.id, error.reason, error.argument)
        return request.provider, request.model
