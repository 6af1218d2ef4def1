"""Reads OpenTelemetry's own environment variables (``OTEL_EXPORTER_OTLP_…``): whether and where spans are exported. Pure.

A program that exports its traces already needs no further setting: Headrace's spans go to the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from urllib.parse import unquote

import msgspec

_CAPTURES_ON_SPANS = frozenset({"true", "span_only", "span_and_event"})
DEFAULT_SERVICE_NAME = "headrace"


class OtelExport(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans are exported to. The fields have the names of a sink's settings."""

    url: str
    headers: dict[str, str] = {}
    content: bool = False
    service_name: str = DEFAULT_SERVICE_NAME
    compression: Literal["none", "gzip"] = "none"

    def __repr__(self) -> str:
        return f"OtelExport(headers={sorted(self.headers)!r}, content={self.content!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return the fields that may be shown: no header's value, and no address, because both may hold a key."""
        return [("headers", sorted(self.headers)), ("content", self.content)]


class UnsupportedExport(msgspec.Struct, frozen=True):
    """The variables ask for an export that Headrace cannot do."""

    reason: str


def read_otel_environment(environ: Mapping[str, str]) -> OtelExport | UnsupportedExport | None:
    """Return the export that the variables ask for; None if they ask for none, or switch it off."""
    # The specification says: a variable with an empty value counts as not set.
    url = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or ""
    if not url or _is_true(environ, "OTEL_SDK_DISABLED") or not _exports_otlp(environ):
        return None
    protocol = _of_traces(environ, "PROTOCOL").lower()
    if protocol == "grpc":
        reason = "OTEL_EXPORTER_OTLP_PROTOCOL is grpc; set http/protobuf and an endpoint for it (port 4318 by custom)"
        return UnsupportedExport(reason)
    return OtelExport(
        url=url,
        headers=_headers(_of_traces(environ, "HEADERS")),
        content=environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").lower() in _CAPTURES_ON_SPANS,
        service_name=_service_name(environ),
        compression="gzip" if _of_traces(environ, "COMPRESSION").lower() == "gzip" else "none",
    )


def _of_traces(environ: Mapping[str, str], name: str) -> str:
    """Return the value of an exporter variable: the variable for traces, else the variable for all signals."""
    return environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""


def _is_true(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip().lower() == "true"


def _exports_otlp(environ: Mapping[str, str]) -> bool:
    exporters = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return "otlp" in [exporter.strip().lower() for exporter in exporters.split(",")]


def _headers(text: str) -> dict[str, str]:
    """Return the headers in ``name=value,name=value``, percent-decoded. Other text between commas is left out."""
    headers: dict[str, str] = {}
    for pair in text.split(","):
        name, separator, value = pair.partition("=")
        if separator and (name := unquote(name).strip()):
            headers[name] = unquote(value).strip()
    return headers


def _service_name(environ: Mapping[str, str]) -> str:
    named = _headers(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")).get("service.name")
    return environ.get("OTEL_SERVICE_NAME") or named or DEFAULT_SERVICE_NAME
