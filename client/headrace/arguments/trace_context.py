"""Reads the caller's active OpenTelemetry span, so that Headrace's spans become part of the caller's traces.

OpenTelemetry is never imported here. If the program uses it, the program has imported it.
"""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger(__name__)


def current_traceparent() -> str | None:
    """Return the W3C ``traceparent`` of the active span in this context, or None.

    Raises nothing, even if OpenTelemetry does.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    try:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
    except Exception:  # tracing must never make a run fail
        logger.exception("trace context cannot be read")
        return None
