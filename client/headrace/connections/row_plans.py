"""Plans the rows of a batch job. Rows that differ in their messages or inputs only are checked once.

``connections/request_shapes.py`` remembers the checked requests. A row with another shape goes the way of any run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.arguments.provider_access import ProviderAccess
from headrace.arguments.trace_context import current_traceparent
from headrace.connections.request_shapes import RequestShapes, parts_of
from headrace.connections.run_starter import RunStarter
from headrace.runs.run_plan import RunPlan
from headrace.schemas.response_type import ResponseType


class RowPlan(NamedTuple):
    """The plan of a row, its trace, and what reads its answer."""

    plan: RunPlan
    trace_id: str
    response_type: ResponseType | None


class RowPlans:
    """The plans of one job's rows. ``shared``: arguments for each row that has none of its own of that name."""

    def __init__(self, starter: RunStarter, shared: Mapping[str, Any]) -> None:
        self._starter = starter
        self._shared = dict(shared)
        self._shapes = RequestShapes()
        # What is the same for all rows that start together, by provider and key of the caller.
        self._access: dict[tuple[str, str | None], ProviderAccess] = {}
        self._traceparent: str | None = None

    def begin_group(self) -> None:
        """Rows start now: look at the environment, and at the caller's trace, once for all of them."""
        self._access.clear()
        self._traceparent = current_traceparent()

    def plan(self, arguments: Mapping[str, Any], *, is_embedding: bool) -> RowPlan:
        """Return the plan of a row. Raises InvalidRequestError, ConfigurationError."""
        parts = parts_of(arguments, "input" if is_embedding else "messages", traceparent=self._traceparent)
        shape = self._shapes.of(parts)
        if parts is not None and shape is not None and (plan := shape.plan_of(parts, self._access_of)) is not None:
            return RowPlan(plan, parts.trace_id, shape.response_type)
        given: Any = {**self._shared, **arguments}
        response_type = None
        if is_embedding:
            planned, request = self._starter.plan_embedding(given)
        else:
            response_type = _response_type(given.pop("response_type", None))
            planned, request = self._starter.plan_run(given, stream=False, response_type=response_type)
        self._shapes.note(parts, planned.plan, request, given.get("provider_api_key"), response_type)
        return RowPlan(planned.plan, planned.trace_id, response_type)

    def _access_of(self, provider: str, own_key: str | None) -> ProviderAccess:
        found = self._access.get((provider, own_key))
        if found is None:
            found = self._access[provider, own_key] = self._starter.access(provider, own_key)
        return found


def _response_type(given: object) -> ResponseType | None:
    if given is None:
        return None
    from headrace.runs.typed_answer import typed_answer_of

    return typed_answer_of(given).response_type
