"""A simulated model provider, for tests and benchmarks without a network or an API key; and a player of recordings."""

from headrace.testing.batches.batch_control import BatchRecord, SimulatedBatches
from headrace.testing.provider import SimulatedProvider
from headrace.testing.recording.recorded_exchange import RecordingError
from headrace.testing.replayed_provider import ReplayedProvider, UnmatchedRequestError, replay
from headrace.testing.server import run_server, serve
from headrace.testing.shared.provider_limits import ProviderLimits
from headrace.testing.shared.request_log import Arrival, Outcome, RequestRecord, key_hash
from headrace.testing.shared.script import Script, ScriptedLogprob, ScriptedToolCall

__all__ = [
    "Arrival",
    "BatchRecord",
    "Outcome",
    "ProviderLimits",
    "RecordingError",
    "ReplayedProvider",
    "RequestRecord",
    "Script",
    "ScriptedLogprob",
    "ScriptedToolCall",
    "SimulatedBatches",
    "SimulatedProvider",
    "UnmatchedRequestError",
    "key_hash",
    "replay",
    "run_server",
    "serve",
]
