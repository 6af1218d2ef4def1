"""A function as a tool: what the model is told of it, and the arguments of a call read into what the function takes.

Makes no call: the room ``headrace.tool_loop`` does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from headrace.errors import InvalidRequestError
from headrace.schemas.portable_form import PortableForm, portable_form
from headrace.schemas.type_reading import type_schema
from headrace.schemas.type_schema import TypeSchema
from headrace.schemas.value_mismatch import ValueMismatchError
from headrace.tools.argument_schema import object_schema, with_words
from headrace.tools.docstring_reading import read_docstring
from headrace.tools.signature_reading import FunctionParameter, docstring_of, name_of, read_parameters
from headrace.tools.tool_marks import ToolMark, is_tool_name, mark_of
from headrace.types import Tool

_remembered: WeakKeyDictionary[Any, dict[tuple[bool, ToolMark], FunctionTool]] = WeakKeyDictionary()
"""What was read of each function: as a plain function or as a method, and with which words of the decorator."""


class UnfitArgumentsError(Exception):
    """The arguments of a call do not fit the function. The text names each argument that is wrong, for the model."""


class FunctionTool(msgspec.Struct, frozen=True):
    """A function that a model may call."""

    function: Callable[..., Any]
    tool: Tool
    """What the model is told of it."""
    parameters: tuple[FunctionParameter, ...]
    types: dict[str, TypeSchema]
    """The type of each parameter."""
    timeout: float | None = None
    """Seconds that one call may take. ``None``: no limit."""
    raises: tuple[type[BaseException], ...] = ()
    """Errors that end the whole conversation."""
    portable: PortableForm | None = None
    """The form in which a strict tool is told to the model, and the way back for the arguments."""

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call the function."""
        return self.function(*positional, **named)

    def read_arguments(self, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a call, by position and by name. Raises UnfitArgumentsError."""
        if self.portable is not None:
            given = self._restored(self.portable, given)
        problems = [f"{name}: there is no such argument" for name in given if name not in self.types]
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self.parameters:
            try:
                value = self._value(parameter, given)
            except ValueMismatchError as error:
                problems.append(f"{parameter.name}{error.path.removeprefix('$')}: {error.reason}")
                continue
            if parameter.is_positional_only:
                positional.append(value)
            else:
                named[parameter.name] = value
        if problems:
            takes = ", ".join(self.types) or "no arguments"
            raise UnfitArgumentsError(f"{'; '.join(problems)}. {self.tool.name} takes: {takes}")
        return positional, named

    def _value(self, parameter: FunctionParameter, given: Mapping[str, Any]) -> Any:
        if parameter.name in given:
            return _decoded(self.types[parameter.name], given[parameter.name])
        if parameter.make_default is not None:
            return parameter.make_default()
        if parameter.is_required:
            raise ValueMismatchError("$", "is missing")
        return parameter.default

    def _restored(self, portable: PortableForm, given: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            restored = portable.restore(dict(given))
        except ValueMismatchError as error:
            raise UnfitArgumentsError(f"{error.path.removeprefix('$.')}: {error.reason}") from None
        return restored if isinstance(restored, Mapping) else given


def _decoded(kind: TypeSchema, value: Any) -> Any:
    """Read a value into its type. A model may write an int as ``2.0``."""
    try:
        return kind.decode(value)
    except ValueMismatchError as error:
        try:
            return kind.decode(_with_ints(value))
        except ValueMismatchError:
            raise error from None


def _with_ints(value: Any) -> Any:
    """Return a JSON value with an int for each float without a fraction."""
    if isinstance(value, dict):
        return {key: _with_ints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_ints(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def function_tool(argument: str, function: Any) -> FunctionTool:
    """Return a function as a tool. What was read of a function or a method is remembered.

    Raises InvalidRequestError, which names ``argument`` and the parameter, for a function that cannot be one.
    """
    if isinstance(function, FunctionTool):
        return function
    if isinstance(function, type):
        reason = f"takes a function, not the class {function.__name__}: give a function, or a method of an object"
        raise InvalidRequestError(reason, argument)
    mark = mark_of(function)
    is_method = inspect.ismethod(function)
    written: Any = function.__func__ if is_method else function
    if not inspect.isfunction(written):
        return _read(argument, function, mark)
    remembered = _remembered.setdefault(written, {})
    known = remembered.get((is_method, mark))
    if known is None:
        # Without the function itself: a reference to it would keep it, and what was read of it, for ever.
        known = remembered[is_method, mark] = msgspec.structs.replace(
            _read(argument, function, mark), function=_nothing
        )
    return msgspec.structs.replace(known, function=function)


def _nothing() -> None:
    """Stand in the place of a function in what is remembered."""


def _read(argument: str, function: Any, mark: ToolMark) -> FunctionTool:
    name = mark.name if mark.name is not None else name_of(function)
    if not is_tool_name(name):
        reason = (
            f"the tool's name {name!r} must have 1 to 64 letters A-Z a-z, digits, '_' or '-': "
            "give one with @headrace.tool(name=…)"
        )
        raise InvalidRequestError(reason, argument)
    words = read_docstring(docstring_of(function))
    parameters = read_parameters(argument, function)
    types = {parameter.name: _type_of(argument, name, parameter) for parameter in parameters}
    parts = [
        (
            parameter.name,
            with_words(types[parameter.name].schema, _words_of(parameter, words.parameters)),
            parameter.is_required,
        )
        for parameter in parameters
    ]
    schema = object_schema(parts)
    portable = portable_form(schema, argument) if mark.strict else None
    tool = Tool(
        name=name,
        description=words.description if mark.description is None else mark.description,
        parameters=schema if portable is None else portable.schema,
        strict=mark.strict,
    )
    return FunctionTool(function, tool, tuple(parameters), types, mark.timeout, mark.raises, portable)


def _type_of(argument: str, tool_name: str, parameter: FunctionParameter) -> TypeSchema:
    try:
        return type_schema(parameter.annotation, argument)
    except InvalidRequestError as error:
        reason = f"the parameter {parameter.name!r} of {tool_name}(): {error.reason}"
        raise InvalidRequestError(reason, argument) from None


def _words_of(parameter: FunctionParameter, described: Mapping[str, str]) -> dict[str, Any]:
    """Return what the schema of a parameter says beyond its type: a description, and the default if JSON can hold it."""
    words: dict[str, Any] = {}
    if description := parameter.description or described.get(parameter.name, ""):
        words["description"] = description
    if not parameter.is_required and parameter.make_default is None and parameter.default is not None:
        try:
            words["default"] = msgspec.to_builtins(parameter.default)
        except (TypeError, ValueError):
            return words
    return words
