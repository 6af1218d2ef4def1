"""Which sink a configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.settings.settings import SinkConfig
from headrace_engine.spans.sinks.sink import Sink


def build(config: SinkConfig, environ: Mapping[str, str]) -> Sink:
    """Return the sink; raises SinkUnusableError. Each kind is loaded only where it is asked for."""
    match config.type:
        case "otlp":
            from headrace_engine.spans.sinks.otlp import OtlpSink

            return OtlpSink(config, environ)
        case "http":
            from headrace_engine.spans.sinks.http_json import HttpJsonSink

            return HttpJsonSink(config, environ)
        case "jsonl":
            from headrace_engine.spans.sinks.jsonl import JsonLinesSink

            return JsonLinesSink(config)
