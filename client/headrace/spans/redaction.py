"""Redacts spans: applies the content policy and the redaction hook of the settings before a span is written anywhere.

An error of the hook never makes a run fail. The content is dropped then, and the span's ``content_note`` says so.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.errors import ConfigurationError, RemoteProtocolError
from headrace.settings.settings import SpansConfig
from headrace.spans.span import Span, SpanContent, decode_content, encode_content

logger = logging.getLogger(__name__)

POLICY = "policy"
REDACTED = "redacted"
FAILED = "redaction failed"
UNENCODABLE = "cannot be encoded"

Hook = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Takes the content as a dict with all its fields. Returns the content to keep, or None to keep nothing."""

_EMPTY: dict[str, Any] = {
    "messages": [],
    "inputs": [],
    "tools": [],
    "text": "",
    "reasoning": "",
    "refusal": None,
    "tool_calls": [],
    "media": [],
}


class Redactor:
    """Redacts the content of spans as the settings say. Creating one raises ConfigurationError for wrong settings."""

    def __init__(self, config: SpansConfig) -> None:
        self._keeps_content = config.content == "full"
        # Load the hook even if no content is kept: a hook that cannot be loaded is an error in any case.
        self._hook = load_hook(config.redact) if config.redact else None
        self._warned: set[str] = set()

    @property
    def keeps_content(self) -> bool:
        """Whether spans keep content."""
        return self._keeps_content

    def redact(self, span: Span, content: SpanContent) -> Span:
        """Return the span with its redacted content, or with a note why it has no content."""
        encoded, note = self.encoded(content)
        return msgspec.structs.replace(span, content=encoded, content_note=note)

    def encoded(self, content: SpanContent) -> tuple[bytes, str]:
        """Return the redacted content for a span's ``content``, and the span's ``content_note``: why there is none, if there is none."""
        if not self._keeps_content:
            return b"", POLICY
        try:
            kept = content if self._hook is None else self._redacted(self._hook, content)
        except Exception as error:  # noqa: BLE001 - a hook may raise anything
            self._warn(error)
            return b"", FAILED
        if kept is None:
            return b"", REDACTED
        try:
            return encode_content(kept), ""
        except (TypeError, ValueError, OverflowError, RecursionError):
            return b"", UNENCODABLE if self._hook is None else FAILED

    def redact_again(self, span: Span) -> Span:
        """Redact the content of a span that another process made."""
        if not span.content or (self._keeps_content and self._hook is None):
            return span
        if not self._keeps_content:
            return _without(span, POLICY)
        try:
            content = decode_content(span.content)
        except RemoteProtocolError:
            return _without(span, FAILED)
        return self.redact(span, content)

    def _redacted(self, hook: Hook, content: SpanContent) -> SpanContent | None:
        kept = hook(_EMPTY | msgspec.to_builtins(content))
        return None if kept is None else msgspec.convert(kept, SpanContent)

    def _warn(self, error: Exception) -> None:
        # The error's text may quote the content, so log only its type. Log each type once: each run may raise it.
        name = type(error).__name__
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("redaction hook failed", extra={"error": name})


def load_hook(name: str) -> Hook:
    """Return the function that ``module:function`` names. Raises ConfigurationError if there is none."""
    module_name, separator, path = name.partition(":")
    if not separator or not module_name or not path:
        raise ConfigurationError(f"spans.redact is {name!r}; it takes 'module:function'")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part, None)
    except (Exception, SystemExit) as error:  # a module may raise anything when it is imported
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            hint = "; the current directory is not searched: install the module, or name its directory in PYTHONPATH"
        raise ConfigurationError(
            f"spans.redact is {name!r}: {module_name} cannot be imported: {type(error).__name__}: {error}{hint}"
        ) from error
    if not callable(found):
        raise ConfigurationError(f"spans.redact is {name!r}: {module_name} has no function {path}")
    import inspect  # not before there is a hook: a collector without one starts faster

    if inspect.iscoroutinefunction(found):
        raise ConfigurationError(f"spans.redact is {name!r}: the function must not be async")
    return found  # type: ignore[no-any-return]


def check_hook_exists(config: SpansConfig) -> None:
    """Raise ConfigurationError if this process, and so its engine, cannot find the hook's package. Imports nothing."""
    top = config.redact.partition(":")[0].partition(".")[0]
    if not config.enabled or not top:
        return
    try:
        is_there = importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):  # the module is just being imported, or does not come from a file
        return
    if not is_there:
        raise ConfigurationError(f"spans.redact is {config.redact!r}: the import path has no module {top}")


def _without(span: Span, note: str) -> Span:
    return msgspec.structs.replace(span, content=b"", content_note=note)
