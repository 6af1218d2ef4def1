"""Runs a batch job over a frame of pandas or polars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.arguments.checks import word
from headrace.batch.frames.frame_items import FrameItems
from headrace.batch.frames.frame_kinds import with_results
from headrace.batch.frames.result_fields import field_names, fields_of
from headrace.batch.from_python.batch_results import BatchResults
from headrace.errors import InvalidRequestError

_NOT_RUN = "the row was not run: it does not belong to limit or sample, or the job stopped at max_cost"

Start = Callable[[Any], BatchResults[Any]]
"""Starts a job with rows."""


def run_frame(frame: Any, into: Any, response_type: object, arguments: Mapping[str, Any], start: Start) -> Any:
    """Return the frame with a column of results. Raises what ends the job as a whole, and InvalidRequestError."""
    if word("into", into) is None:
        raise InvalidRequestError("takes the name of the new column, a non-empty str", "into")
    names = field_names(has_type=response_type is not None, embeds=arguments.get("embed") is not None)

    def run(items: FrameItems) -> list[dict[str, Any]]:
        missing = dict.fromkeys(names) | {"error": _NOT_RUN}
        fields: list[dict[str, Any]] = [missing] * len(items)
        with start(items) as results:
            for result in results:
                fields[result.number - 1] = fields_of(result, names)
        return fields

    return with_results(frame, into, names, run)
