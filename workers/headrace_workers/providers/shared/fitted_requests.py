"""Puts fitted schemas into a request: those of ``response_type`` and of strict tools. Pure.

The last fitted schemas are remembered, because the runs of a program send the same few schemas.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.request_parts import as_json
from headrace_workers.providers.shared.response_formats import read_response_format
from headrace_workers.providers.shared.schema_walk import Schema
from headrace_workers.providers.shared.server_tools import is_function

FitAll = Callable[[list[tuple[str, Schema]]], list[Schema]]
"""Fits all schemas of a request, each with the caller's argument that it is from."""

_MAX_REMEMBERED_BYTES = 32 * 1024
"""The size of the schemas of one request that are remembered."""
_NO_PARAMETERS: Schema = {"type": "object", "properties": {}}


def with_fitted_schemas(request: RunRequest, fit_all: FitAll, *, has_answer_schema: bool = True) -> RunRequest:
    """Return the request with its strict schemas fitted to the provider; the same request if none is to be fitted.

    ``has_answer_schema``: whether the schema of the answer is one of them. Some models get it in another way.

    Raises ProviderFailedError (``invalid_request``) if a schema cannot be fitted.
    """
    if not request.fits_schemas:
        return request
    form = None if request.response_format is None else read_response_format(request.response_format)
    is_wanted = form is not None and form.kind == "json_schema" and form.strict and has_answer_schema
    strict = [index for index, tool in enumerate(request.tools) if tool.strict and is_function(tool)]
    given = [(f"tools[{index}].parameters", request.tools[index].parameters or _NO_PARAMETERS) for index in strict]
    if form is not None and is_wanted:
        given.append(("response_type", form.schema))
    fitted = _fitted(fit_all, given)
    changes: dict[str, Any] = {}
    if form is not None and is_wanted:
        words = {} if form.description is None else {"description": form.description}
        named = {"name": form.name, "schema": fitted[-1], "strict": True}
        changes["response_format"] = {"type": "json_schema"} | named | words
    if strict:
        by_index = dict(zip(strict, fitted, strict=False))
        changes["tools"] = [
            msgspec.structs.replace(tool, parameters=by_index[index]) if index in by_index else tool
            for index, tool in enumerate(request.tools)
        ]
    return msgspec.structs.replace(request, **changes)


def _fitted(fit_all: FitAll, given: list[tuple[str, Schema]]) -> list[Schema]:
    encoded = tuple((where, as_json(schema, where)) for where, schema in given)
    if sum(len(data) for _, data in encoded) > _MAX_REMEMBERED_BYTES:
        return fit_all(given)
    return _remembered(fit_all, encoded)


@functools.lru_cache(maxsize=32)
def _remembered(fit_all: FitAll, encoded: tuple[tuple[str, bytes], ...]) -> list[Schema]:
    """Fit schemas. Nobody may change the result."""
    return fit_all([(where, msgspec.json.decode(data)) for where, data in encoded])
