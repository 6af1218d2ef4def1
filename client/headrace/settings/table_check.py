"""Checks the tables of a ``headrace.toml``: compares each value with the declared type and range of its setting. Pure.

The declarations are the Structs of :mod:`headrace.settings.settings`. ``msgspec.Meta`` gives a setting its range, and in ``extra``:
``unit`` of a number, ``one_of``: the words that the setting takes, ``others``: a pattern of further words, ``others_are``: what these
words are, ``form``: a pattern for the whole value, ``takes``: what the setting takes, in words, and ``hidden``: an error must not show the
value, because it may be a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from headrace.text.similar_names import meant

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+(\[\d+\])?")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LONGEST_SHOWN = 60
_LONGEST_NAME = 200
_HIDDEN = {"hidden": True}


def first_problem(table: Mapping[str, object], kind: type[msgspec.Struct]) -> str | None:
    """Return the first problem of a file's tables, or None. The text is one line that names the table and the key."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)  # noqa: S101 - as the argument's type says
    return _misplaced(table, info) or next(_in_struct(table, info, ()), None)


def figure_problem(name: str, value: object, kind: type[msgspec.Struct], setting: str) -> str | None:
    """Return what is wrong with a value for a setting of ``kind``, or None. The value comes from an argument, not from a file."""
    (field,) = (field for field in _fields(kind) if field.encode_name == setting)
    return next(_problems(value, field.type, (name,)), None)


def dotted(path: Sequence[str]) -> str:
    """Return a path of names as TOML writes it. A name of more than 200 characters is cut."""
    return ".".join(map(_written, path))


def _written(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        return f"{_written(name[:_LONGEST_NAME])}…"
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _misplaced(table: Mapping[str, object], info: inspect.StructType) -> str | None:
    """Return the problem of a setting that stands in the wrong table, or None."""
    tables = {field.encode_name: field.type for field in info.fields}
    keys = {name: _keys(kind) for name, kind in tables.items() if isinstance(kind, inspect.StructType)}
    homes = {key: name for name, known in keys.items() for key in known}
    for name, value in table.items():
        if name not in tables and name in homes and not isinstance(value, dict):
            return f"{name} is not known outside a table; it belongs in [{homes[name]}]"
        for key in value if name in keys and isinstance(value, dict) else ():
            if key not in keys[name] and key in homes:
                return f"{dotted((name, key))} is not known; it belongs in [{homes[key]}]"
    return None


def _keys(info: inspect.StructType) -> list[str]:
    return [field.encode_name for field in info.fields]


def _problems(value: object, info: inspect.Type, path: tuple[str, ...], extra: Mapping[str, Any] = {}) -> Iterator[str]:
    match info:
        case inspect.Metadata():
            yield from _problems(value, info.type, path, info.extra or {})
        case inspect.StructType():
            yield from _in_struct(value, info, path)
        case inspect.DictType():
            yield from _in_dict(value, info, path)
        case inspect.ListType() if isinstance(value, list):
            for number, item in enumerate(value):
                yield from _problems(item, info.item_type, (*path[:-1], f"{path[-1]}[{number}]"))
        case inspect.UnionType():
            yield from _in_union(value, info, path)
        case _:
            if (wrong := _wrong(value, info, extra)) is not None:
                yield f"{dotted(path)} {wrong}"


def _in_struct(value: object, info: inspect.StructType, path: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{dotted(path)} is {_shown(value, _HIDDEN)}; it is a table: [{dotted(path)}]"
        return
    fields = {field.encode_name: field for field in info.fields}
    for name, item in value.items():
        if name in fields:
            yield from _problems(item, fields[name].type, (*path, name))
        else:
            is_cut = len(path) > 1 and isinstance(item, dict) and not fields.keys() & value.keys()
            yield _unknown(name, fields, path, is_name_cut=is_cut)
    yield from (
        f"{dotted((*path, name))} is missing" for name, field in fields.items() if field.required and name not in value
    )


def _in_dict(value: object, info: inspect.DictType, path: tuple[str, ...]) -> Iterator[str]:
    key_extra = info.key_type.extra or {} if isinstance(info.key_type, inspect.Metadata) else {}
    item_type = info.value_type.type if isinstance(info.value_type, inspect.Metadata) else info.value_type
    is_nested = isinstance(item_type, inspect.StructType)
    if not isinstance(value, dict):
        takes = f"it takes tables: [{dotted(path)}.NAME]" if is_nested else "it takes a table of strings"
        yield f"{dotted(path)} is {_shown(value, _HIDDEN)}; {takes}"
        return
    for name, item in value.items():
        if not re.fullmatch(key_extra.get("name", r"[^\x00-\x1f\x7f-\x9f]+"), name):
            takes = key_extra.get("takes", "a name without control characters")
            yield f"{dotted(path)}: {_shown(name)} cannot be a name; it takes {takes}"
        elif is_nested and not isinstance(item, dict):
            yield f"{dotted((*path, name))} is {_shown(item, _HIDDEN)}; it is a table with a name: [{dotted(path)}.NAME]"
        else:
            yield from _problems(item, info.value_type, (*path, name))


def _in_union(value: object, info: inspect.UnionType, path: tuple[str, ...]) -> Iterator[str]:
    kinds = [kind for kind in info.types if not isinstance(kind, inspect.NoneType)]  # TOML has no null
    is_list = isinstance(value, list)
    fitting = [kind for kind in kinds if isinstance(kind, inspect.ListType) == is_list]
    if len(fitting) == 1 and (is_list or len(kinds) == 1 or isinstance(value, str)):
        yield from _problems(value, fitting[0], path)
    else:
        yield f"{dotted(path)} is {_shown(value)}; it takes {' or '.join(_takes(kind, {}) for kind in kinds)}"


def _wrong(value: object, info: inspect.Type, extra: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a plain value, or None. The text is the end of a sentence that begins with the setting's name."""
    if _fits(value, info, extra):
        return None
    words = [str(word) for word in info.values] if isinstance(info, inspect.LiteralType) else extra.get("one_of", ())
    if isinstance(value, str) and isinstance(info, inspect.StrType) and not words and _CONTROLS.search(value):
        return "has a control character in it; take it out"
    if isinstance(value, str) and isinstance(info, inspect.StrType) and extra.get("hidden"):
        return f"does not fit; it takes {_takes(info, extra)}"
    if isinstance(value, str) and (close := meant(value, words)) is not None:
        return f"is {_shown(value)}; did you mean {_shown(close)}? It takes {_takes(info, extra)}"
    return f"is {_shown(value, extra)}; it takes {_takes(info, extra)}"


def _fits(value: object, info: inspect.Type, extra: Mapping[str, Any]) -> bool:
    match info:
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool) and _is_within(value, info)
        case inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool) and _is_within(value, info)
        case inspect.LiteralType():
            return isinstance(value, str) and value in info.values
        case inspect.StrType():
            return isinstance(value, str) and _is_text(value, extra)
        case _:
            return False


def _is_within(value: float, info: inspect.IntType | inspect.FloatType) -> bool:
    # NaN is in no range. Compare an integer as it is: one of 400 digits does not fit in a float.
    return (
        (info.ge is None or value >= info.ge)
        and (info.gt is None or value > info.gt)
        and (info.le is None or value <= info.le)
    )


def _is_text(value: str, extra: Mapping[str, Any]) -> bool:
    if "one_of" in extra:
        return value in extra["one_of"] or _is_other(value, extra)
    return not _CONTROLS.search(value) and ("form" not in extra or re.fullmatch(extra["form"], value) is not None)


def _is_other(value: str, extra: Mapping[str, Any]) -> bool:
    """Return whether a setting takes a word that is not one of its known words, and not a misspelt one."""
    return (
        "others" in extra and re.fullmatch(extra["others"], value) is not None and meant(value, extra["one_of"]) is None
    )


def _takes(info: inspect.Type, extra: Mapping[str, Any]) -> str:
    match info:
        case inspect.Metadata():
            return _takes(info.type, info.extra or {})
        case _ if "takes" in extra:
            return str(extra["takes"])
        case inspect.LiteralType():
            return _joined_with_or([_shown(str(value)) for value in info.values])
        case inspect.StrType() if "one_of" in extra:
            words = [_shown(word) for word in extra["one_of"]]
            return _joined_with_or([*words, extra["others_are"]] if "others_are" in extra else words)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            kind = "a whole number" if isinstance(info, inspect.IntType) else "a number"
            unit = f" of {extra['unit']}" if "unit" in extra else ""
            return f"{kind}{unit} {_range(info)}"
        case inspect.ListType():
            return "a list of strings"
        case _:
            return "a string"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    if info.gt is not None:
        return f"above {info.gt:_} and at most {info.le:_}"
    return f"from {info.ge:_} to {info.le:_}"


def _joined_with_or(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _unknown(name: str, known: Iterable[str], path: tuple[str, ...], *, is_name_cut: bool) -> str:
    """Return the error for an unknown key. ``is_name_cut``: the key may be the end of its table's name, which has a dot in it."""
    whole = dotted((*path, name))
    if (close := meant(name, known)) is not None:
        return f"{whole} is not known; did you mean {close if path else f'[{close}]'}?"
    place = f"[{dotted(path)}]" if path else "the file"
    if is_name_cut:
        written = dotted((*path[:-1], f"{path[-1]}.{name}"))
        return f"{whole} is not known; did you mean [{written}]? A name with a dot takes quotes"
    return f"{whole} is not known; {place} takes {', '.join(known)}"


def _shown(value: object, extra: Mapping[str, Any] = {}) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() if extra.get("hidden"):
            return "a string"
        case str():
            text = value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "…"
            return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
        case int():
            return f"{value}" if abs(value) < 10**_LONGEST_SHOWN else "a number of many digits"
        case float():
            return f"{value:g}"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or a time"


def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)  # noqa: S101 - as the argument's type says
    return info.fields
