"""The caller's active OpenTelemetry span, so that Headrace's spans hang in the caller's own traces.

OpenTelemetry is neither needed nor imported: where the program uses it, it is there already.
"""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger(__name__)


def current_traceparent() -> str | None:
    """Return the W3C ``traceparent`` of the span that is active in this context, or None. Whatever OpenTelemetry does, it raises nothing."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    try:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
    except Exception:  # a run must not fail by what only records it
        logger.exception("trace context cannot be read")
        return None
