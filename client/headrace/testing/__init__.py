"""A simulated model provider, for tests and benchmarks without a network or an API key."""

from headrace.testing.provider import SimulatedProvider
from headrace.testing.server import run_server, serve
from headrace.testing.shared.request_log import Outcome, RequestRecord
from headrace.testing.shared.script import Script, ScriptedLogprob, ScriptedToolCall

__all__ = [
    "Outcome",
    "RequestRecord",
    "Script",
    "ScriptedLogprob",
    "ScriptedToolCall",
    "SimulatedProvider",
    "run_server",
    "serve",
]
