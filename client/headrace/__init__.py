"""Headrace: streaming LLM calls through a pool of worker processes.

Importing this package opens no socket and starts no thread.
"""

from typing import TYPE_CHECKING, Any

from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.client import Client
from headrace.errors import (
    AuthenticationError,
    ConfigurationError,
    EngineUnavailableError,
    ForkedStreamError,
    HeadraceError,
    InvalidRequestError,
    LocalProtocolError,
    PoisonRunError,
    ProtocolError,
    ProtocolMismatchError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailableError,
    QueueFullError,
    RateLimitError,
    RemoteProtocolError,
    RunError,
    RunTimeoutError,
    StreamConsumedError,
    WorkerLostError,
)
from headrace.streams import LocalStream
from headrace.types import (
    FlushCounts,
    ImagePart,
    IncompleteToolCall,
    Message,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RunEmbeddingResult,
    RunLocalResult,
    StreamEvent,
    StreamResult,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.version import VERSION

if TYPE_CHECKING:
    from headrace.async_streams import AsyncLocalStream

__all__ = [
    "AsyncLocalStream",
    "AuthenticationError",
    "Client",
    "ConfigurationError",
    "EmbeddingArguments",
    "EngineUnavailableError",
    "FlushCounts",
    "ForkedStreamError",
    "HeadraceError",
    "ImagePart",
    "IncompleteToolCall",
    "InvalidRequestError",
    "LocalProtocolError",
    "LocalStream",
    "Message",
    "PoisonRunError",
    "ProtocolError",
    "ProtocolMismatchError",
    "ProviderError",
    "ProviderProtocolError",
    "ProviderUnavailableError",
    "QueueFullError",
    "RateLimitError",
    "ReasoningDelta",
    "ReasoningPart",
    "RefusalDelta",
    "RemoteProtocolError",
    "RunArguments",
    "RunEmbeddingResult",
    "RunError",
    "RunLocalResult",
    "RunTimeoutError",
    "StreamConsumedError",
    "StreamEvent",
    "StreamResult",
    "TextDelta",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallPart",
    "Usage",
    "UsageUpdate",
    "WorkerLostError",
    "__version__",
]

__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Import AsyncLocalStream at its first use, so that a program without asyncio does not import asyncio."""
    if name == "AsyncLocalStream":
        from headrace.async_streams import AsyncLocalStream

        return AsyncLocalStream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
