"""Headrace: streaming LLM calls through a pool of worker processes.

Importing this package opens no socket and starts no thread.
"""

import importlib
from typing import TYPE_CHECKING, Any

from headrace.dict_form import DictReader, read_with
from headrace.errors import (
    AuthenticationError,
    BatchError,
    BatchInputError,
    BudgetExceededError,
    ChangedInputError,
    ConfigurationError,
    DuplicateRowsError,
    EngineUnavailableError,
    ForkedStreamError,
    HeadraceError,
    InvalidRequestError,
    JobLockedError,
    JournalError,
    LocalProtocolError,
    OutputConflictError,
    OutputValidationError,
    PoisonRunError,
    ProtocolError,
    ProtocolMismatchError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailableError,
    QueueFullError,
    RateLimitError,
    RecordWriteError,
    RemoteProtocolError,
    RunError,
    RunTimeoutError,
    StreamConsumedError,
    WorkerLostError,
)
from headrace.failed_attempt import FailedAttempt
from headrace.text.foreign_attributes import missing_name
from headrace.types import (
    AudioPart,
    FilePart,
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
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallPart,
    TopLogprob,
    Usage,
    UsageUpdate,
)
from headrace.version import VERSION

if TYPE_CHECKING:
    from headrace.arguments.batch_arguments import BatchArguments, MapArguments
    from headrace.arguments.message_dicts import (
        AudioPartDict,
        FilePartDict,
        FunctionCallDict,
        ImagePartDict,
        ImageUrlDict,
        ImageUrlPartDict,
        MessageDict,
        ReasoningPartDict,
        TextPartDict,
        ToolCallDict,
        ToolCallPartDict,
    )
    from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
    from headrace.async_streams import AsyncLocalStream
    from headrace.batch.driver.progress import BatchProgress
    from headrace.batch.from_python.async_batch_results import AsyncBatchResults
    from headrace.batch.from_python.batch_result import BatchResult
    from headrace.batch.from_python.batch_results import BatchResults
    from headrace.client import Client
    from headrace.status import (
        EngineStatus,
        LimitState,
        PoolState,
        ProcessState,
        SinkState,
        SpanState,
        SpendingState,
        WorkerState,
    )
    from headrace.streams import LocalStream
    from headrace.tool_loop.async_tool_stream import AsyncToolStream
    from headrace.tool_loop.tool_events import ToolCallReturned, ToolCallStarted, ToolRunEvent, TurnEnded, TurnStarted
    from headrace.tool_loop.tool_stream import ToolStream
    from headrace.tool_loop.tools_result import RunToolsResult
    from headrace.tools.tool_marks import tool

__all__ = [
    "AsyncBatchResults",
    "AsyncLocalStream",
    "AsyncToolStream",
    "AudioPart",
    "AudioPartDict",
    "AuthenticationError",
    "BatchArguments",
    "BatchError",
    "BatchInputError",
    "BatchProgress",
    "BatchResult",
    "BatchResults",
    "BudgetExceededError",
    "ChangedInputError",
    "Client",
    "ConfigurationError",
    "DuplicateRowsError",
    "EmbeddingArguments",
    "EngineStatus",
    "EngineUnavailableError",
    "FailedAttempt",
    "FilePart",
    "FilePartDict",
    "FlushCounts",
    "ForkedStreamError",
    "FunctionCallDict",
    "HeadraceError",
    "ImagePart",
    "ImagePartDict",
    "ImageUrlDict",
    "ImageUrlPartDict",
    "IncompleteToolCall",
    "InvalidRequestError",
    "JobLockedError",
    "JournalError",
    "LimitState",
    "LocalProtocolError",
    "LocalStream",
    "MapArguments",
    "Message",
    "MessageDict",
    "OutputConflictError",
    "OutputValidationError",
    "PoisonRunError",
    "PoolState",
    "ProcessState",
    "ProtocolError",
    "ProtocolMismatchError",
    "ProviderError",
    "ProviderProtocolError",
    "ProviderUnavailableError",
    "QueueFullError",
    "RateLimitError",
    "ReasoningDelta",
    "ReasoningPart",
    "ReasoningPartDict",
    "RecordWriteError",
    "RefusalDelta",
    "RemoteProtocolError",
    "RunArguments",
    "RunEmbeddingResult",
    "RunError",
    "RunLocalResult",
    "RunTimeoutError",
    "RunToolsResult",
    "SinkState",
    "SpanState",
    "SpendingState",
    "StreamConsumedError",
    "StreamEvent",
    "StreamResult",
    "TextDelta",
    "TextPart",
    "TextPartDict",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallDict",
    "ToolCallPart",
    "ToolCallPartDict",
    "ToolCallReturned",
    "ToolCallStarted",
    "ToolRunEvent",
    "ToolStream",
    "TopLogprob",
    "TurnEnded",
    "TurnStarted",
    "Usage",
    "UsageUpdate",
    "WorkerLostError",
    "WorkerState",
    "__version__",
    "tool",
]

__version__ = VERSION


_MODULES = {
    "AsyncBatchResults": "headrace.batch.from_python.async_batch_results",
    "AsyncLocalStream": "headrace.async_streams",
    "AsyncToolStream": "headrace.tool_loop.async_tool_stream",
    "AudioPartDict": "headrace.arguments.message_dicts",
    "BatchArguments": "headrace.arguments.batch_arguments",
    "BatchProgress": "headrace.batch.driver.progress",
    "BatchResult": "headrace.batch.from_python.batch_result",
    "BatchResults": "headrace.batch.from_python.batch_results",
    "Client": "headrace.client",
    "EmbeddingArguments": "headrace.arguments.run_arguments",
    "EngineStatus": "headrace.status",
    "FilePartDict": "headrace.arguments.message_dicts",
    "FunctionCallDict": "headrace.arguments.message_dicts",
    "ImagePartDict": "headrace.arguments.message_dicts",
    "ImageUrlDict": "headrace.arguments.message_dicts",
    "ImageUrlPartDict": "headrace.arguments.message_dicts",
    "LimitState": "headrace.status",
    "LocalStream": "headrace.streams",
    "MapArguments": "headrace.arguments.batch_arguments",
    "MessageDict": "headrace.arguments.message_dicts",
    "PoolState": "headrace.status",
    "ProcessState": "headrace.status",
    "ReasoningPartDict": "headrace.arguments.message_dicts",
    "RunArguments": "headrace.arguments.run_arguments",
    "RunToolsResult": "headrace.tool_loop.tools_result",
    "SinkState": "headrace.status",
    "SpanState": "headrace.status",
    "SpendingState": "headrace.status",
    "TextPartDict": "headrace.arguments.message_dicts",
    "ToolCallDict": "headrace.arguments.message_dicts",
    "ToolCallPartDict": "headrace.arguments.message_dicts",
    "ToolCallReturned": "headrace.tool_loop.tool_events",
    "ToolCallStarted": "headrace.tool_loop.tool_events",
    "ToolRunEvent": "headrace.tool_loop.tool_events",
    "ToolStream": "headrace.tool_loop.tool_stream",
    "TurnEnded": "headrace.tool_loop.tool_events",
    "TurnStarted": "headrace.tool_loop.tool_events",
    "WorkerState": "headrace.status",
    "tool": "headrace.tools.tool_marks",
}
"""Public names of a client. Their modules are imported at the first use of the name."""


def __getattr__(name: str) -> Any:
    """Import a public name of the client at its first use.

    The processes of an engine use rooms of this package without the client. A program without asyncio does not import asyncio.
    """
    if name not in _MODULES:
        raise missing_name(__name__, name)
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def _dict_reader() -> DictReader:
    from headrace.arguments.dict_reader import CallersDicts

    return CallersDicts()


read_with(_dict_reader)


def __dir__() -> list[str]:
    """Return all names, also those that have not been used yet."""
    return sorted({*globals(), *__all__})
