"""Reads ``multipart/form-data`` bodies of the simulated provider. Pure."""

from __future__ import annotations

import re

import msgspec

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)
_NAME = re.compile(rb'\bname="([^"]*)"')
_FILE_NAME = re.compile(rb'\bfilename="([^"]*)"')


class FormPart(msgspec.Struct, frozen=True):
    """One field of a form. ``file_name`` is None for a field without a file."""

    content: bytes
    file_name: str | None = None


def form_of(body: bytes, content_type: str) -> dict[str, FormPart] | None:
    """Return the fields of a form by their names; None if it is no form. The last field of a name counts."""
    boundary = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or boundary is None:
        return None
    mark = b"--" + (boundary[1] or boundary[2]).encode("latin-1")
    fields: dict[str, FormPart] = {}
    for part in (b"\r\n" + body).split(b"\r\n" + mark)[1:]:
        if part.startswith(b"--"):  # the end of the form
            return fields
        head, separator, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not separator or name is None:
            return None
        file_name = _FILE_NAME.search(head)
        text = None if file_name is None else file_name[1].decode("utf-8", "replace")
        fields[name[1].decode("utf-8", "replace")] = FormPart(content, text)
    return None  # cut off
