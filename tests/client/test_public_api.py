"""What is public: this list, and nothing else. A change here needs a line in the changelog."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

import headrace
from headrace import errors, types
from tests.cases import each

PUBLIC = [
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


def test_the_public_names_are_these() -> None:
    assert headrace.__all__ == PUBLIC


@each("name", PUBLIC)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(importlib.import_module("headrace"), name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = headrace.no_such_name  # type: ignore[attr-defined,unused-ignore]


def test_every_error_is_public() -> None:
    names = {name for name, item in vars(errors).items() if inspect.isclass(item) and issubclass(item, Exception)}

    assert names <= set(headrace.__all__)


def test_every_type_of_a_result_is_public() -> None:
    defined = {
        name for name, item in vars(types).items() if inspect.isclass(item) and item.__module__ == types.__name__
    }

    assert defined <= set(headrace.__all__)


@pytest.mark.parametrize("arguments", [headrace.RunArguments, headrace.EmbeddingArguments])
def test_help_lists_every_argument_of_a_run(arguments: type) -> None:
    assert arguments.__doc__ is not None
    named = re.findall(r"``(\w+)``", arguments.__doc__)
    assert arguments.__annotations__.keys() <= {*named}
