"""Checks the input file of an OpenAI batch, and reads its requests. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.testing.batches.simulated_batch import FileFault, SimulatedRow

_MAX_ROWS = 50_000
_MAX_BYTES = 200 * 1024 * 1024
_MAX_FAULTS = 100
_FIELDS = ("custom_id", "method", "url", "body")


def rows_of(content: bytes, endpoint: str) -> tuple[list[SimulatedRow], list[FileFault]]:
    """Return the requests of a file, and its faults: with one of them, OpenAI answers none of the requests."""
    if len(content) > _MAX_BYTES:
        return [], [FileFault("file_too_large", f"The file has {len(content)} bytes; a batch can have {_MAX_BYTES}.")]
    lines = [line for line in enumerate(content.split(b"\n"), 1) if line[1].strip()]
    if not lines:
        return [], [FileFault("empty_file", "The file has no requests.")]
    if len(lines) > _MAX_ROWS:
        return [], [FileFault("too_many_tasks", f"The file has {len(lines)} requests; a batch can have {_MAX_ROWS}.")]
    rows: list[SimulatedRow] = []
    faults: list[FileFault] = []
    reader = _LineReader(endpoint)
    for number, line in lines:
        read = reader.read(line, number)
        if isinstance(read, FileFault):
            faults.append(read)
        else:
            rows.append(read)
    return ([], faults[:_MAX_FAULTS]) if faults else (rows, [])


class _LineReader:
    """Reads the lines of one file. Remembers the ids and the model of the lines before."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._ids: set[str] = set()
        self._model: Any = None

    def read(self, line: bytes, number: int) -> SimulatedRow | FileFault:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return FileFault("invalid_json_line", "This line is no valid JSON.", None, number)
        if not isinstance(row, dict):
            return FileFault("invalid_json_line", "This line is no JSON object.", None, number)
        return self._fault(row, number) or SimulatedRow(row["custom_id"], row["url"], row["body"])

    def _fault(self, row: dict[str, Any], number: int) -> FileFault | None:
        for name in _FIELDS:
            if name not in row:
                return FileFault(
                    "missing_required_parameter", f"The required parameter '{name}' is missing.", name, number
                )
        custom_id, body = row["custom_id"], row["body"]
        if not isinstance(custom_id, str) or not isinstance(body, dict):
            return FileFault("invalid_type", "'custom_id' must be a string, and 'body' an object.", None, number)
        if custom_id in self._ids:
            return FileFault(
                "duplicate_custom_id", f"An earlier line has the custom_id '{custom_id}' too.", "custom_id", number
            )
        self._ids.add(custom_id)
        if row["method"] != "POST":
            return FileFault("invalid_method", "The method must be 'POST'.", "method", number)
        if row["url"] != self._endpoint:
            text = f"The url '{row['url']}' is not the endpoint of the batch, '{self._endpoint}'."
            return FileFault("mismatched_url", text, "url", number)
        return self._model_fault(body, number)

    def _model_fault(self, body: dict[str, Any], number: int) -> FileFault | None:
        model = body.get("model")
        if model == "no-such-model":
            return FileFault("model_not_found", f"The model '{model}' does not exist.", "body.model", number)
        if self._model is None:
            self._model = model
        if model != self._model:
            text = (
                f"The model '{model}' is another one than '{self._model}' of the lines before: a batch has one model."
            )
            return FileFault("mismatched_model", text, "body.model", number)
        return None
