"""Spans with extreme values in each field, as they may come from a provider, a peer or a damaged file.

Made from the types of the fields.
"""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from headrace.spans.span import Rank, Span, SpanContent

INTEGERS = st.sampled_from(
    [0, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**200, 10**400]
)
FLOATS = st.sampled_from(
    [0.0, -1.0, 1e300, -1e300, float("inf"), float("-inf"), float("nan"), 1.8e9, 5e-324, 253402300800.0, 1e18, 1.7e308]
)
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "\0",
        "\ud800",
        "a\udfffb",
        "\x1b[2J\x9b",
        "\u202e",
        "=1+1",
        "\n",
        "世" * 50,
        "x" * 5000,
        "[" * 3000,
        "1e999",
        "'",
    ]
)
IDS = st.sampled_from(
    [
        "",
        "sp_",
        "sp_zz",
        "sp_" + "0" * 16,
        "sp_" + "a" * 15,
        "sp_" + "a" * 40,
        "tr_" + "1" * 16,
        "é\ud800",
        "sp_\0",
        "../x",
        "sp_ 1a2",
    ]
)


def _nested(levels: int) -> Any:
    value: Any = {"deep": 10**30}
    for _ in range(levels):
        value = [value]
    return value


ANYTHING = st.one_of(
    INTEGERS, FLOATS, TEXTS, st.none(), st.booleans(), st.just(_nested(60)), st.just(_nested(3000)),
    st.lists(INTEGERS, max_size=2), st.dictionaries(TEXTS, FLOATS, max_size=2), st.just(object()), st.just({1: b"\xff"}),
)  # fmt: skip
PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["max_output_tokens", "temperature", "top_p", "dimensions", "stop_sequences", "seed", "response_format"]
    )
    | st.sampled_from(["reasoning_effort", "custom_options", "\ud800"]),
    ANYTHING,
    max_size=4,
)


def extreme(kind: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Return values of a type, the extreme ones; ``name`` is that of the field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if name == "parameters":
        return PARAMETERS
    if name.endswith("_id") or name == "id":
        return IDS | st.none() if type(None) in arguments else IDS
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.builds(kind, **{each: extreme(hint, each) for each, hint in get_type_hints(kind).items()})
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([extreme(each) for each in arguments])
    if origin is list:
        return st.lists(extreme(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(TEXTS, extreme(arguments[1]), max_size=2)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        int: INTEGERS, float: FLOATS, str: TEXTS, bool: st.booleans(), type(None): st.none(), Any: ANYTHING,
        bytes: st.sampled_from([b"", b"{}", b"[", b"[1]", b"\xff", b'{"text":"\\u009b"}', b'{"text":1}', b"{\n}\n{}", b"[" * 5000, b"null"]),
        Rank: st.sampled_from(Rank),
    }  # fmt: skip
    return simple[kind]


SPANS: st.SearchStrategy[Span] = extreme(Span)
CONTENTS: st.SearchStrategy[SpanContent] = extreme(SpanContent)
COSTS = st.none() | FLOATS
