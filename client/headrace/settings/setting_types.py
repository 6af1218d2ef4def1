"""The types of settings, with their ranges, units and forms. :mod:`headrace.settings.table_check` reads them. Types only."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_YEAR = 366 * 86400
MIB = 1024 * 1024
PIB = 1024**5

Timeout = Annotated[float, Meta(ge=0.001, le=_YEAR, extra={"unit": "seconds"})]
TimeoutOrNever = Annotated[float, Meta(ge=0, le=_YEAR, extra={"unit": "seconds"})]
Bytes = Annotated[int, Meta(ge=0, le=PIB, extra={"unit": "bytes"})]
Address = Annotated[str, Meta(extra={"hidden": True})]
"""It may hold a password."""
Header = Annotated[str, Meta(extra={"hidden": True})]
_VARIABLE_TAKES = (
    "the name of an environment variable (letters, digits and _): the key itself does not belong in the file"
)
# Not Meta(pattern=…): when msgspec 0.22 frees a union of a str with a pattern and a list, it frees the pattern too, which
# corrupts memory.
Variable = Annotated[str, Meta(extra={"form": r"[A-Za-z_][A-Za-z0-9_]*", "takes": _VARIABLE_TAKES, "hidden": True})]
VariableOrNone = Annotated[
    str, Meta(extra={"form": r"([A-Za-z_][A-Za-z0-9_]*)?", "takes": _VARIABLE_TAKES, "hidden": True})
]
ProviderName = Annotated[
    str,
    Meta(
        extra={"name": r"[^\s/\x00-\x1f\x7f-\x9f]+", "takes": "a name without blanks and without /, as in NAME/model"}
    ),
]
