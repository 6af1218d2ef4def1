"""Reads the tools and the tool choice of a call, in the forms of each provider. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec

from headrace.arguments import checks
from headrace.arguments.mapping_keys import KnownKeys, further_keys, joined
from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.plain_values import named, path_to, plain_dict, plain_text, shown
from headrace.errors import InvalidRequestError
from headrace.types import Tool
from headrace.wire.run_request import CUSTOM as _CUSTOM
from headrace.wire.run_request import chosen_by

if TYPE_CHECKING:
    from headrace.tools.function_tool import FunctionTool

_TOOL_CHOICES = ("auto", "none", "required")
_CHOICES_OF_OTHERS = {"any": "'required'", "auto": "'auto'", "none": "'none'", "required": "'required'"}
"""A word of a provider for a choice, in lower case → Headrace's."""
_FUNCTION = "function"
_SCHEMA_KEYS = ("parameters", "input_schema", "inputSchema", "parameters_json_schema", "parametersJsonSchema")
"""The names for a tool's schema: of OpenAI, Anthropic, MCP, and Google."""

_READ = frozenset({"name", "description", "strict", *_SCHEMA_KEYS})
_FIELDS = _READ | {"type", "extra"}
_PASSED_ON = frozenset({"output_schema", "outputSchema", "input_examples"})
_SLIPS = {
    "schema": "parameters",
    "json_schema": "parameters",
    "args": "parameters",
    "arguments": "parameters",
    "func": _FUNCTION,
    "fn": _FUNCTION,
}
_KEYS = KnownKeys(_FIELDS | {_FUNCTION}, _PASSED_ON, _SLIPS, _FIELDS)
_KEYS_INSIDE = KnownKeys(_READ, _PASSED_ON, _SLIPS, _FIELDS | {_FUNCTION})
_KEYS_OF_CUSTOM = KnownKeys(_FIELDS, fields=_FIELDS, guesses=False)
_FIELDS_OF_OTHERS = frozenset({*Tool.__struct_fields__})
_KEYS_OF_OTHERS = KnownKeys(_FIELDS_OF_OTHERS, fields=_FIELDS_OF_OTHERS, guesses=False)

_Level = tuple[str, Mapping[Any, Any]]
"""The path to a dict within a tool, and the dict."""


def read_tools(tools: object, original_paths: OriginalPaths) -> list[Tool]:
    """Return the tools. Keys that Headrace does not know go into ``extra``. Raises InvalidRequestError.

    Functions must have been read: see :func:`with_functions_read`.
    Adds to ``original_paths`` each path that differs in the request.
    """
    if tools is None:
        return []
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        one = callable(tools) or isinstance(tools, (Mapping, Tool))
        raise InvalidRequestError("takes a list of tools" + ("; put the tool into a list" if one else ""), "tools")
    read = [
        _told(f"tools[{index}]", tool.tool)
        if _is_function(tool)
        else read_tool(f"tools[{index}]", tool, original_paths)
        for index, tool in enumerate(tools)
    ]
    _check_names(read)
    return read


def _told(argument: str, tool: Tool) -> Tool:
    """Return what the model is told of a function, in plain types: a default may hold what JSON cannot."""
    return msgspec.structs.replace(
        tool,
        description=plain_text(f"{argument}.description", tool.description),
        parameters=plain_dict(f"{argument}.parameters", tool.parameters),
    )


def with_functions_read(tools: Any) -> Any:
    """Return the tools of a call with each function read into a FunctionTool, so that it is read once.

    Other tools, and what is no list, stay as they are: :func:`read_tools` checks them.
    Raises InvalidRequestError for a function that cannot be a tool.
    """
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        return tools
    return [_with_function_read(f"tools[{index}]", tool) for index, tool in enumerate(tools)]


def has_strict_function(tools: Any) -> bool:
    """Tell whether a function among the tools is strict: its schema must be fitted to what the provider takes."""
    return any(tool.portable is not None for tool in tools if _is_function(tool))


def _with_function_read(argument: str, tool: Any) -> Any:
    if not _is_function(tool):
        return tool
    from headrace.tools.function_tool import function_tool  # most programs give no functions

    return function_tool(argument, tool)


def _is_function(tool: object) -> TypeGuard[FunctionTool]:
    """Tell whether a tool is a function, which :func:`with_functions_read` makes a FunctionTool."""
    return callable(tool) and not isinstance(tool, Mapping)


def _check_names(tools: list[Tool]) -> None:
    """Refuse two functions of one name: the model could not tell them apart."""
    places: dict[str, int] = {}
    for index, tool in enumerate(tools):
        first = places.setdefault(tool.name, index) if tool.type == _FUNCTION else index
        if first != index:
            reason = f"has the name {shown(tool.name)}, as tools[{first}] has: give one of them another name"
            raise InvalidRequestError(reason, f"tools[{index}]")


def read_tool(argument: str, tool: object, original_paths: OriginalPaths) -> Tool:
    given = msgspec.structs.asdict(tool) if isinstance(tool, Tool) else tool
    if not isinstance(given, Mapping):
        raise InvalidRequestError(f"takes a function, a dict or a Tool, not {named(tool)}", argument)
    if (keyed := _keyed_tool(argument, given)) is not None:
        original_paths |= dict.fromkeys((argument, f"{argument}.type"), path_to(argument, keyed.type))
        return keyed
    kind = checks.text(f"{argument}.type", given.get("type")) or _FUNCTION
    if kind != _FUNCTION:
        # A custom tool is much like a function, so its schema may have any of the names. Other tools are passed on as
        # they are.
        keys, schema_keys = (_KEYS_OF_CUSTOM, _SCHEMA_KEYS) if kind == _CUSTOM else (_KEYS_OF_OTHERS, ("parameters",))
        return _built([(argument, given)], kind, further_keys(argument, given, keys), original_paths, schema_keys)
    levels: list[_Level] = [(argument, given)]
    within = None
    if (function := given.get(_FUNCTION)) is not None:
        inside = f"{argument}.{_FUNCTION}"
        checks.instance(inside, function, Mapping, "a dict")
        levels.append((inside, function))
        within = further_keys(inside, function, _KEYS_INSIDE)
    extra = joined(argument, further_keys(argument, given, _KEYS), within and {_FUNCTION: within})
    built = _built(levels, kind, extra, original_paths)
    if not built.name:
        is_given = any("name" in keys for _, keys in levels)
        if is_given:
            raise InvalidRequestError("takes a non-empty name", f"{argument}.name")
        raise InvalidRequestError("the tool has no name: give one as 'name'", argument)
    return built


def _keyed_tool(argument: str, given: Mapping[Any, Any]) -> Tool | None:
    """Read Google's form of a built-in tool, such as ``{"google_search": {}}``: one key that holds the settings."""
    match list(given.items()):
        case [(str(key), Mapping() as settings)] if key not in _KEYS.read and _KEYS.slip(key) is None:
            kind = plain_text(argument, key)
            return Tool(name="", type=kind, extra=plain_dict(path_to(argument, kind), settings) or None)
        case _:
            return None


def _built(
    levels: Sequence[_Level],
    kind: str,
    extra: dict[str, Any] | None,
    original_paths: OriginalPaths,
    schema_keys: Sequence[str] = _SCHEMA_KEYS,
) -> Tool:
    """Return the tool whose fields are given flat, or in ``function``. Refuse two different values of one field."""
    name_at, name = _one(levels, ("name",))
    described_at, description = _one(levels, ("description",))
    schema_at, schema = _one(levels, schema_keys)
    strict_at, strict = _one(levels, ("strict",))
    argument = levels[0][0]
    places = {"name": name_at, "description": described_at, "parameters": schema_at, "strict": strict_at}
    original_paths |= {
        f"{argument}.{field}": at for field, at in places.items() if at not in {argument, f"{argument}.{field}"}
    }
    if strict is not None:
        checks.instance(strict_at, strict, bool, "a bool")
    return Tool(
        name=checks.text(name_at, name) or "",
        description=checks.text(described_at, description) or "",
        parameters={} if schema is None else plain_dict(schema_at, schema),
        strict=strict,
        type=kind,
        extra=extra,
    )


def _one(levels: Sequence[_Level], names: Sequence[str]) -> tuple[str, Any]:
    """Return the path and the value of a field that has several names. The value None counts as absent."""
    found = [
        (path_to(argument, name), value)
        for argument, given in levels
        for name in names
        if (value := given.get(name)) is not None and not (name == "parameters" and value == {})
    ]
    for place, value in found[1:]:
        if value != found[0][1]:
            raise InvalidRequestError(f"differs from {found[0][0]}", place)
    return found[0] if found else (levels[0][0], None)


def read_tool_choice(choice: Any, tools: list[Tool]) -> str | dict[str, str] | None:
    """Check the tool choice, and return it. See :func:`chosen_by`."""
    if choice is None:
        return None
    if not tools:
        raise InvalidRequestError("is given, but there are no tools", "tool_choice")
    if isinstance(choice, str) and choice in _TOOL_CHOICES:
        return plain_text("tool_choice", choice)
    if isinstance(choice, Mapping) and set(choice) == {"tool"}:
        names = [chosen_by(tool) for tool in tools]
        if choice["tool"] not in names:
            raise InvalidRequestError(
                f"there is no tool {shown(choice['tool'])}; there are: {', '.join(names)}", "tool_choice"
            )
        return {"tool": plain_text("tool_choice.tool", choice["tool"])}
    meant = _choice_meant(choice, tools)
    advice = f"; did you mean {meant}?" if meant else f", not {shown(choice)}"
    raise InvalidRequestError(f"takes 'auto', 'none', 'required' or {{'tool': name}}{advice}", "tool_choice")


def _choice_meant(choice: object, tools: list[Tool]) -> str | None:
    """Return Headrace's form of a choice that is written in the form of a provider, or as a function or a bare name."""
    kind = choice.get("type", choice.get("mode")) if isinstance(choice, Mapping) else choice
    if isinstance(kind, str) and kind.lower() in _CHOICES_OF_OTHERS:
        return _CHOICES_OF_OTHERS[kind.lower()]
    inner = choice.get(_FUNCTION, choice) if isinstance(choice, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else getattr(choice, "__name__", choice)
    names = [chosen_by(tool) for tool in tools]
    return f"{{'tool': {shown(name)}}}" if isinstance(name, str) and name in names else None
