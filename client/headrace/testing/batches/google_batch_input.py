"""Reads the requests of a Gemini batch: from a file, or inline. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headrace.testing.batches.batch_store import StoredFile
from headrace.testing.batches.simulated_batch import FileFault, SimulatedRow

_MAX_INLINE_BYTES = 20 * 1024 * 1024


class BadInputError(Exception):
    """The batch is refused when it is created."""


def rows_of(
    config: dict[str, Any], path: str, file_named: Callable[[str], StoredFile | None]
) -> tuple[list[SimulatedRow], list[FileFault]]:
    """Return the requests, and the faults of the file. ``path``: that of the batch's creation. Raises BadInputError."""
    row_path = path.replace(":batchGenerateContent", ":generateContent").replace(
        ":asyncBatchEmbedContent", ":batchEmbedContents"
    )
    name = config.get("fileName", config.get("file_name"))
    if isinstance(name, str):
        file = file_named(name)
        if file is None:
            raise BadInputError(f"batch.input_config.file_name: there is no file {name}.")
        return _rows_of_file(file.content, row_path)
    inline = config.get("requests")
    requests = inline.get("requests") if isinstance(inline, dict) else None
    if not isinstance(requests, list) or not requests:
        raise BadInputError("batch.input_config: needs a file_name or requests.")
    if len(msgspec.json.encode(requests)) > _MAX_INLINE_BYTES:
        raise BadInputError("Request payload size exceeds the limit: 20971520 bytes.")
    rows: list[SimulatedRow] = []
    for index, one in enumerate(requests):
        body = one.get("request") if isinstance(one, dict) else None
        if not isinstance(body, dict):
            raise BadInputError(f"batch.input_config.requests.requests[{index}].request: is required.")
        rows.append(SimulatedRow(str(index), row_path, _body(body, row_path), one.get("metadata")))
    return rows, []


def _rows_of_file(content: bytes, path: str) -> tuple[list[SimulatedRow], list[FileFault]]:
    rows: list[SimulatedRow] = []
    faults: list[FileFault] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            one = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            faults.append(FileFault("INVALID_ARGUMENT", f"Line {number} is no valid JSON: {error}", None, number))
            continue
        if not isinstance(one, dict) or not isinstance(one.get("request"), dict):
            faults.append(FileFault("INVALID_ARGUMENT", f"Line {number} has no 'request'.", "request", number))
            continue
        rows.append(SimulatedRow(str(one.get("key", "")), path, _body(one["request"], path)))
    if not rows and not faults:
        faults.append(FileFault("INVALID_ARGUMENT", "The file has no requests."))
    return ([], faults) if faults else (rows, [])


def _body(request: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the body of the live request that a request of a batch stands for."""
    model = path.partition("/models/")[2].partition(":")[0]
    if path.endswith(":batchEmbedContents"):
        return {"requests": [{"model": f"models/{model}"} | request]}
    if request.get("model") in {model, f"models/{model}"}:
        return {name: value for name, value in request.items() if name != "model"}
    return request
