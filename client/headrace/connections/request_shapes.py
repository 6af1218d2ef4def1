"""Remembers checked requests by their shape, so that similar calls are checked only once.

Two calls have the same *shape* if all their arguments are equal, with the same types, except for the messages (or the
inputs) and the ids. The first two calls of a shape go the general way, which checks everything. The messages and ids of
a later call are put into the encoded request of the second. A call goes the general way if its messages are not plain
text, or if one of its arguments cannot be compared. So the general way alone knows what is wrong with an argument.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from headrace.arguments.checked_request import SPAN_ID, TRACE_ID
from headrace.arguments.provider_access import ProviderAccess
from headrace.arguments.token_estimate import BYTES_PER_TOKEN
from headrace.connections.new_ids import new_run_ids
from headrace.runs.run_plan import RunPlan
from headrace.schemas.response_type import ResponseType
from headrace.wire.accounts import account_of, short_hash
from headrace.wire.codec import RequestPattern
from headrace.wire.messages import MAX_REQUEST_BYTES
from headrace.wire.run_request import RunRequest

MAX_SHAPES = 256
"""Shapes that are remembered. If each call had a shape of its own, remembering would be in vain."""
MAX_KEY_BYTES = 4 * 1024 * 1024
"""Bytes of all arguments that are remembered. Schemas of tools can be long."""
_IDS = frozenset({"span_id", "trace_id", "parent_span_id", "user_id", "session_id"})
"""Arguments that may differ within a shape, besides the messages or inputs."""
_NO_IDS: dict[str, str] = {}
_NEVER = frozenset({"variables", "fallbacks", "hedge_after_ms"})
"""Arguments that a shape cannot have."""
_ROLES = frozenset({"system", "developer", "user", "assistant"})
_MARSHAL_VERSION = 2
"""The last version in which equal values have equal bytes, whoever else refers to them."""

Field = Literal["messages", "input"]
"""The argument that differs in each call."""
Access = Callable[[str, str | None], ProviderAccess]
"""Returns the key and the address of a run that starts now, by its provider and the caller's own key."""
_Key = tuple[tuple[str, ...], object, bool, int, bytes]
"""The fields that differ, whether the run streams, whether the messages are one text, the response type, the rest."""


class CallParts(msgspec.Struct, frozen=True):
    """A call, taken apart. ``fields`` and ``values``: what is its own in the request, in the order of the fields.

    ``user``: the short hash of the user's id.
    """

    key: _Key
    fields: tuple[str, ...]
    values: list[Any]
    span_id: str
    trace_id: str
    user: str


class Shape(msgspec.Struct, frozen=True):
    """What the calls of one shape have in common. ``plan``: that of one of them, without its request."""

    plan: RunPlan
    pattern: RequestPattern
    own_key: str | None
    response_type: ResponseType | None

    def plan_of(self, parts: CallParts, access_of: Access) -> RunPlan | None:
        """Return the plan of a call; None for a call that must go the general way.

        Raises the errors of ``access_of``.
        """
        try:
            request = self.pattern.encode(parts.values)
        except ValueError:  # half of a surrogate pair
            return None
        size = len(request)
        if size > MAX_REQUEST_BYTES:
            return None
        first = self.plan
        access = access_of(first.provider, self.own_key)
        key, base_url = access.api_key, access.base_url
        return RunPlan(
            parts.span_id,
            first.provider,
            first.model,
            request,
            first.streams,
            key,
            base_url,
            first.original_paths,
            first.priority,
            first.on_abort,
            first.total_timeout,
            first.is_traced,
            first.max_retries,
            account_of(key, base_url),
            parts.user,
            first.tags,
            size // BYTES_PER_TOKEN,
            first.max_output_tokens,
        )


class RequestShapes:
    """The shapes of one client's calls, or of one job's rows. Safe with threads."""

    def __init__(self) -> None:
        self._seen: set[_Key] = set()
        """Keys of calls that were seen once."""
        self._shapes: dict[_Key, Shape | None] = {}
        """None: calls with this key go the general way always."""
        self._key_bytes = 0

    def __reduce__(self) -> tuple[type[RequestShapes], tuple[()]]:
        """Remember nothing in a copy of a client: shapes hold keys of callers, and functions that cannot be pickled."""
        return RequestShapes, ()

    def of(self, parts: CallParts | None) -> Shape | None:
        """Return the shape of a call; None if its shape is not known."""
        return None if parts is None else self._shapes.get(parts.key)

    def note(
        self,
        parts: CallParts | None,
        plan: RunPlan,
        request: RunRequest,
        own_key: str | None,
        response_type: ResponseType | None = None,
    ) -> None:
        """A call went the general way, with this result. Its shape is remembered when it comes the second time."""
        if parts is None or parts.key in self._shapes:
            return
        key = parts.key
        if key in self._seen:
            self._shapes[key] = _shape(parts, plan, request, own_key, response_type)
            return
        self._key_bytes += len(key[-1])
        if len(self._seen) >= MAX_SHAPES or self._key_bytes > MAX_KEY_BYTES:
            self._seen.clear()
            self._shapes.clear()
            self._key_bytes = len(key[-1])
        self._seen.add(key)


def _shape(
    parts: CallParts, plan: RunPlan, request: RunRequest, own_key: str | None, response_type: ResponseType | None
) -> Shape | None:
    if plan.fallback is not None or plan.hedge_after is not None or plan.first_chunks is not None:
        return None
    if _has_bytes(marshal.loads(parts.key[-1])):  # noqa: S302 - made by parts_of
        return None
    try:
        pattern = RequestPattern(request, parts.fields)
    except ValueError:
        return None
    # Without the request: it may be large, and a shape is kept for long.
    return Shape(msgspec.structs.replace(plan, request=b""), pattern, own_key, response_type)


def parts_of(
    arguments: Mapping[str, Any],
    field: Field,
    *,
    stream: object = False,
    traceparent: str | None = None,
    response_type: ResponseType | None = None,
) -> CallParts | None:
    """Return the parts of a call; None for a call that must go the general way. Its arguments were not checked."""
    others = dict(arguments)
    given = others.pop(field, None)
    values = _plain_messages(given) if field == "messages" else _plain_inputs(given)
    names = others.keys()
    if values is None or type(stream) is not bool or not names.isdisjoint(_NEVER):
        return None
    ids = (
        _NO_IDS if names.isdisjoint(_IDS) else {name: others.pop(name) for name in _IDS if others.get(name) is not None}
    )
    if ids and not _are_ids(ids):
        return None
    try:
        rest = marshal.dumps(others, _MARSHAL_VERSION)
    except ValueError:  # a value of another type than JSON has
        return None
    span_id, trace_id = new_run_ids()
    if ids:
        span_id, trace_id = ids.get("span_id", span_id), ids.get("trace_id", trace_id)
    own: dict[str, Any] = {} if field == "input" else {"messages": values}
    if ids:
        own |= {name: ids[name] for name in ("user_id", "session_id") if name in ids}
    own["trace_id"] = trace_id
    if "parent_span_id" in ids:
        own["parent_span_id"] = ids["parent_span_id"]
    if field == "input":
        own["inputs"] = values
    if traceparent is not None:
        own["traceparent"] = traceparent
    fields = tuple(own)
    key = (fields, stream, type(given) is str, id(response_type), rest)
    user = short_hash(ids["user_id"]) if "user_id" in ids else ""
    return CallParts(key, fields, list(own.values()), span_id, trace_id, user)


def _are_ids(ids: Mapping[str, Any]) -> bool:
    """Return whether the general way would take all these values as they are."""
    for name, value in ids.items():
        if type(value) is not str:
            return False
        if name not in ("user_id", "session_id"):
            pattern = TRACE_ID if name == "trace_id" else SPAN_ID
            if pattern.fullmatch(value) is None:
                return False
    return True


def _has_bytes(value: object) -> bool:
    """Return whether there are bytes in a value. A number of numpy is dumped as bytes, which do not tell its type."""
    if isinstance(value, dict):
        return any(_has_bytes(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple):
        return any(map(_has_bytes, value))
    return isinstance(value, bytes)


def _plain_messages(given: object) -> list[Any] | None:
    """Return messages that are plain text with a role, as they are encoded; None for all others."""
    if type(given) is str and given:
        return [{"role": "user", "content": given}]
    if type(given) is not list or not given:
        return None
    for message in given:
        if type(message) is not dict or len(message) != 2:  # noqa: PLR2004 - a role and a content
            return None
        role, content = message.get("role"), message.get("content")
        # An empty content is encoded in another way.
        if type(content) is not str or not content or type(role) is not str or role not in _ROLES:
            return None
    return given


def _plain_inputs(given: object) -> list[Any] | None:
    """Return inputs that are texts, as they are encoded; None for all others."""
    if type(given) is str and given:
        return [given]
    if type(given) is not list or not given or not all(type(text) is str and text for text in given):
        return None
    return given
