"""Reads the parameters of a function that is offered as a tool: names, types, descriptions and defaults.

A function that no model can call raises InvalidRequestError, which names the parameter and says what to write.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from headrace.errors import InvalidRequestError

NO_DEFAULT = inspect.Parameter.empty


class FunctionParameter(msgspec.Struct, frozen=True):
    """A parameter of a function that a model may give."""

    name: str
    annotation: Any
    """The type, with ``Annotated`` and its metadata, but without plain texts among the metadata."""
    description: str = ""
    """The description in ``Annotated`` or in pydantic's ``Field``; empty: none."""
    default: Any = NO_DEFAULT
    """The value if the model gives none; NO_DEFAULT: the model must give one."""
    make_default: Callable[[], Any] | None = None
    """Makes the value if the model gives none (``default_factory`` of pydantic's ``Field``)."""
    is_positional_only: bool = False

    @property
    def is_required(self) -> bool:
        """Whether the model must give it."""
        return self.default is NO_DEFAULT and self.make_default is None


def name_of(function: Any) -> str:
    """Return the name of a function; for an object that can be called, the name of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def docstring_of(function: Any) -> str | None:
    """Return the docstring of a function. An object that can be called may have it on the class or on ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return inspect.getdoc(function)
    call = inspect.getdoc(function.__call__)
    return call if call and call != inspect.getdoc(object.__call__) else inspect.getdoc(type(function))


def read_parameters(argument: str, function: Callable[..., Any]) -> list[FunctionParameter]:
    """Return the parameters that a model may give. ``functools.partial`` takes out the parameters that it fills."""
    words = f"{name_of(function)}()"
    if inspect.isgeneratorfunction(_innermost(function)) or inspect.isasyncgenfunction(_innermost(function)):
        raise InvalidRequestError(f"{words} is a generator; a tool returns one value: return a list or a str", argument)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        reason = f"{words} does not tell its parameters; write a function around it, with annotations"
        raise InvalidRequestError(reason, argument) from None
    filled = _filled(function)
    return [
        _parameter(argument, words, function, parameter)
        for name, parameter in signature.parameters.items()
        if name not in filled
    ]


def _parameter(argument: str, words: str, function: Any, parameter: inspect.Parameter) -> FunctionParameter:
    name = parameter.name
    if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        reason = f"{words} takes {star}{name}, but a model gives arguments by name: name each parameter"
        if name == "args":
            reason += " (if this is a decorator's wrapper, decorate it with functools.wraps)"
        raise InvalidRequestError(reason, argument)
    if parameter.annotation is parameter.empty:
        if name in {"self", "cls"} and parameter.default is parameter.empty:
            reason = f"{words} is a method without its object: give the method of an object, such as thing.{words[:-2]}"
            raise InvalidRequestError(reason, argument)
        reason = f"the parameter {name!r} of {words} has no annotation: write its type, such as {name}: str"
        raise InvalidRequestError(reason, argument)
    annotation = _resolved(argument, words, function, parameter)
    annotation, description = _split(annotation)
    read = FunctionParameter(
        name,
        annotation,
        description,
        default=parameter.default,
        is_positional_only=parameter.kind is parameter.POSITIONAL_ONLY,
    )
    return _with_field(read) if _is_field(parameter.default) else read


def _resolved(argument: str, words: str, function: Any, parameter: inspect.Parameter) -> Any:
    """Return the annotation as a type: a text, or a text inside a type, is looked up where the function was written."""
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    names = getattr(_innermost(function), "__globals__", {})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
    except Exception as error:  # noqa: BLE001 - the annotation is an expression of the user's
        reason = (
            f"the annotation {parameter.annotation!r} of the parameter {parameter.name!r} of {words} cannot be read "
            f"({type(error).__name__}: {error}): define its names at the top of the function's module"
        )
        raise InvalidRequestError(reason, argument) from None


def _split(annotation: Any) -> tuple[Any, str]:
    """Return the type without plain texts in ``Annotated``, and the description that the metadata has."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, ""
    kind, *metadata = typing.get_args(annotation)
    described = [word for item in metadata if (word := _description_in(item))]
    kept = [item for item in metadata if not isinstance(item, str)]
    return (Annotated[(kind, *kept)] if kept else kind), (described[0] if described else "")


def _description_in(item: object) -> str:
    """Return the description in one item of metadata: a str, ``Meta``, ``Field`` or ``Doc``."""
    if isinstance(item, str):
        return item
    found = getattr(item, "description", None) or getattr(item, "documentation", None)
    return found if isinstance(found, str) else ""


def _is_field(default: object) -> bool:
    """Tell whether a default is pydantic's ``Field(…)``. Does not import pydantic."""
    return type(default).__name__ == "FieldInfo" and type(default).__module__.partition(".")[0] == "pydantic"


def _with_field(parameter: FunctionParameter) -> FunctionParameter:
    """Return a parameter with pydantic's ``Field(…)`` in place of its default, as pydantic would read it."""
    field: Any = parameter.default
    is_required = field.is_required()
    return msgspec.structs.replace(
        parameter,
        annotation=Annotated[parameter.annotation, field],
        description=parameter.description or field.description or "",
        default=NO_DEFAULT if is_required or field.default_factory is not None else field.default,
        make_default=None if is_required else field.default_factory,
    )


def _filled(function: Any) -> set[str]:
    """Return the parameters that ``functools.partial`` fills by name."""
    filled: set[str] = set()
    while isinstance(function, functools.partial):
        filled |= function.keywords.keys()
        function = function.func
    return filled


def _innermost(function: Any) -> Any:
    """Return the function that was written with ``def``: inside of partials, methods, wrappers and callable objects."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.isroutine(function) or not callable(function):
            return function
        else:
            function = type(function).__call__
