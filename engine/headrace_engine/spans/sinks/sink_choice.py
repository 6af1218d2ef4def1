"""Makes the sink that a ``[sinks.NAME]`` table asks for."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.settings.settings import SinkConfig
from headrace_engine.spans.sinks.sink import Sink


def build(config: SinkConfig, environ: Mapping[str, str]) -> Sink:
    """Return the sink. Raises SinkUnusableError. Only the module of this type is imported."""
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
