"""The decorator ``headrace.tool``: tells Headrace more about a function than its signature and docstring do."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

from headrace.errors import InvalidRequestError

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__headrace_tool__"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME_SHOWN = 80


class ToolMark(msgspec.Struct, frozen=True):
    """What ``headrace.tool`` was given for a function. See :func:`tool`."""

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    timeout: float | None = None
    raises: tuple[type[BaseException], ...] = ()


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    raises: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    raises: type[BaseException] | tuple[type[BaseException], ...] = (),
) -> F | Callable[[F], F]:
    """Say more about a function that ``tools=[…]`` offers to a model. Decorates the function, which stays as it is.

    A function needs this decorator only to change what its signature and its docstring say: ``tools=[function]`` takes
    any function with annotations.

    * ``name`` (str): the tool's name, 1 to 64 of ``A-Z a-z 0-9 _ -``. Default: the function's name.
    * ``description`` (str): what the tool does, for the model. Default: the docstring, without its section on arguments.
    * ``strict`` (bool): ``True``: the provider makes the model keep to the schema of the arguments exactly. Default:
      the provider decides.
    * ``timeout`` (float): seconds that one call may take in ``run_tools``. After that the model is told that the call
      took too long. An async function is cancelled; a thread cannot be stopped, and its result is dropped. Default:
      no limit.
    * ``raises`` (exception type, or a tuple of them): errors that end ``run_tools``, which raises them. Default: none:
      the model is told of every error, and goes on.

    Raises InvalidRequestError for a wrong value.
    """
    mark = ToolMark(
        name=_checked_name(name),
        description=_checked("description", description, str, "a str"),
        strict=_checked("strict", strict, bool, "a bool"),
        timeout=_checked_timeout(timeout),
        raises=_checked_types(raises),
    )
    return (lambda given: _marked(given, mark)) if function is None else _marked(function, mark)


def mark_of(function: object) -> ToolMark:
    """Return what the decorator said of a function. Looks also at the function inside a ``functools.partial``."""
    while function is not None:
        mark = getattr(function, _MARK, None)
        if isinstance(mark, ToolMark):
            return mark
        function = function.func if isinstance(function, functools.partial) else None
    return ToolMark()


def is_tool_name(name: str) -> bool:
    """Tell whether every provider takes a name for a tool."""
    return _NAME.fullmatch(name) is not None


def _marked(function: F, mark: ToolMark) -> F:
    if isinstance(function, type):
        reason = f"decorates a function, not the class {function.__name__}; decorate a function that makes the object"
        raise InvalidRequestError(reason, "headrace.tool")
    if not callable(function) and not isinstance(function, classmethod):
        raise InvalidRequestError(f"decorates a function, not {type(function).__name__}", "headrace.tool")
    try:
        setattr(function, _MARK, mark)
    except (AttributeError, TypeError):  # a bound method, or a function written in C
        function = functools.partial(function)  # type: ignore[assignment]
        setattr(function, _MARK, mark)
    return function


def _checked_name(name: Any) -> str | None:
    checked: str | None = _checked("name", name, str, "a str")
    if checked is not None and not is_tool_name(checked):
        reason = f"takes 1 to 64 letters A-Z a-z, digits, '_' or '-', not {checked[:_NAME_SHOWN]!r}"
        raise InvalidRequestError(reason, "headrace.tool: name")
    return checked


def _checked(argument: str, value: Any, kind: type, words: str) -> Any:
    if value is not None and not isinstance(value, kind):
        raise InvalidRequestError(f"takes {words}, not {type(value).__name__}", f"headrace.tool: {argument}")
    return value


def _checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise InvalidRequestError("takes a number of seconds above 0", "headrace.tool: timeout")
    return float(timeout)


def _checked_types(raises: Any) -> tuple[type[BaseException], ...]:
    types = raises if isinstance(raises, tuple) else (raises,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in types):
        raise InvalidRequestError("takes an exception type, or a tuple of them", "headrace.tool: raises")
    return types
