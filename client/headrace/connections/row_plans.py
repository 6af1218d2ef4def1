"""RowPlans: makes the plans of many runs that differ in their messages or inputs only. The other arguments are checked once.

Two rows have the same *shape* if all their other arguments are equal, with the same types. The first row of a shape goes
the way of any run, which checks everything. For the later ones, messages that are plain text are put into the encoded
request of the first. A row that differs in more, or whose messages are not plain text, goes the way of any run.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from typing import Any, NamedTuple

from headrace.arguments.provider_access import ProviderAccess
from headrace.arguments.token_estimate import BYTES_PER_TOKEN
from headrace.arguments.trace_context import current_traceparent
from headrace.connections.new_ids import new_id
from headrace.connections.run_starter import PlannedRun, RunStarter
from headrace.runs.run_plan import RunPlan
from headrace.schemas.response_type import ResponseType
from headrace.wire.accounts import account_of
from headrace.wire.codec import RequestPattern
from headrace.wire.messages import MAX_REQUEST_BYTES

_MAX_SHAPES = 256
"""Shapes that are remembered. Where each row has a shape of its own, remembering is in vain."""
_OWN = frozenset({"span_id", "trace_id", "variables", "fallbacks", "hedge_after_ms"})
"""Arguments that a shape cannot have."""
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_MARSHAL_VERSION = 2
"""The last version in which equal values have equal bytes, whoever else refers to them."""


_Key = tuple[str, bool, str | None, bytes]
"""``messages`` or ``input``, whether it is one text, the caller's trace, and the other arguments."""


class RowPlan(NamedTuple):
    """The plan of a row, its trace, and what reads its answer."""

    plan: RunPlan
    trace_id: str
    response_type: ResponseType | None


class _Shape(NamedTuple):
    plan: RunPlan
    pattern: RequestPattern
    own_key: str | None
    response_type: ResponseType | None


class RowPlans:
    """The plans of one job's rows. ``shared``: arguments for each row that has none of its own of that name."""

    def __init__(self, starter: RunStarter, shared: Mapping[str, Any]) -> None:
        self._starter = starter
        self._shared = dict(shared)
        self._shapes: dict[_Key, _Shape | None] = {}
        # What is the same for all rows that start together, by provider and key of the caller.
        self._access: dict[tuple[str, str | None], tuple[ProviderAccess, str]] = {}
        self._traceparent: str | None = None

    def begin_group(self) -> None:
        """Rows start now: look at the environment, and at the caller's trace, once for all of them."""
        self._access.clear()
        self._traceparent = current_traceparent()

    def plan(self, arguments: Mapping[str, Any], *, is_embedding: bool) -> RowPlan:
        """Return the plan of a row. Raises InvalidRequestError, ConfigurationError."""
        field = "input" if is_embedding else "messages"
        others = dict(arguments)
        given = others.pop(field, None)
        values = _plain_inputs(given) if is_embedding else _plain_messages(given)
        if values is None or not others.keys().isdisjoint(_OWN):
            return self._checked(arguments, is_embedding=is_embedding)[0]
        try:
            key = (field, type(given) is str, self._traceparent, marshal.dumps(others, _MARSHAL_VERSION))
        except ValueError:  # a value of another type than JSON has
            return self._checked(arguments, is_embedding=is_embedding)[0]
        if key not in self._shapes:
            return self._remembered(key, arguments, is_embedding=is_embedding)
        shape = self._shapes[key]
        plan = None if shape is None else self._shaped(shape, values)
        return plan or self._checked(arguments, is_embedding=is_embedding)[0]

    def _checked(self, arguments: Mapping[str, Any], *, is_embedding: bool) -> tuple[RowPlan, PlannedRun]:
        """Return the plan of a row that goes the way of any run."""
        given: Any = {**self._shared, **arguments}
        if is_embedding:
            planned, response_type = self._starter.plan_embedding(given), None
        else:
            response_type = _response_type(given.pop("response_type", None))
            answer_format = None if response_type is None else response_type.response_format
            planned = self._starter.plan_run(given, stream=False, answer_format=answer_format)
        return RowPlan(planned.plan, planned.request.trace_id, response_type), planned

    def _remembered(self, key: _Key, arguments: Mapping[str, Any], *, is_embedding: bool) -> RowPlan:
        """Return the plan of the first row of a shape, and remember the shape."""
        row, planned = self._checked(arguments, is_embedding=is_embedding)
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        shape: _Shape | None = None
        plan = row.plan
        if plan.fallback is None and plan.hedge_after is None and plan.first_chunks is None:
            own_key = {**self._shared, **arguments}.get("provider_api_key")
            try:
                pattern = RequestPattern(planned.request, "inputs" if is_embedding else "messages")
            except ValueError:
                pass
            else:
                shape = _Shape(plan, pattern, own_key, row.response_type)
        self._shapes[key] = shape
        return row

    def _shaped(self, shape: _Shape, values: list[Any]) -> RowPlan | None:
        """Return the plan of a further row of a shape; None for a row that must go the way of any run."""
        trace_id = new_id("tr_")
        try:
            request = shape.pattern.encode(values, trace_id)
        except ValueError:  # half of a surrogate pair
            return None
        if len(request) > MAX_REQUEST_BYTES:
            return None
        first = shape.plan
        access, account = self._access_of(first.provider, shape.own_key)
        plan = RunPlan(
            new_id("sp_"),
            first.provider,
            first.model,
            request,
            False,
            access.api_key,
            access.base_url,
            first.original_paths,
            first.priority,
            first.on_abort,
            first.total_timeout,
            first.is_traced,
            first.max_retries,
            account,
            first.user,
            first.tags,
            len(request) // BYTES_PER_TOKEN,
            first.max_output_tokens,
        )
        return RowPlan(plan, trace_id, shape.response_type)

    def _access_of(self, provider: str, own_key: str | None) -> tuple[ProviderAccess, str]:
        found = self._access.get((provider, own_key))
        if found is None:
            access = self._starter.access(provider, own_key)
            found = self._access[provider, own_key] = access, account_of(access.api_key, access.base_url)
        return found


def _plain_messages(given: object) -> list[Any] | None:
    """Return messages that are plain text with a role, as they are encoded; None for all others."""
    if type(given) is str and given:
        return [{"role": "user", "content": given}]
    if type(given) is not list or not given:
        return None
    for message in given:
        if type(message) is not dict or len(message) != 2:  # noqa: PLR2004 - a role and a content
            return None
        role = message.get("role")
        if type(message.get("content")) is not str or type(role) is not str or role not in _ROLES:
            return None
    return given


def _plain_inputs(given: object) -> list[Any] | None:
    """Return inputs that are texts, as they are encoded; None for all others."""
    if type(given) is str and given:
        return [given]
    if type(given) is not list or not given or not all(type(text) is str and text for text in given):
        return None
    return given


def _response_type(given: object) -> ResponseType | None:
    if given is None:
        return None
    from headrace.runs.typed_answer import typed_answer_of

    return typed_answer_of(given).response_type
