"""What is promised of errors.

They say their facts, survive pickling, know the tree they stand in, and never carry a key.
"""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from headrace import errors
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
from headrace.types import Usage
from headrace.wire.messages import Failed, Refuse
from headrace.wire.typed_errors import failure_error, refusal_error
from tests.cases import each

SPAN = "sp_0123456789abcdef"
PROVIDER_FACTS = (SPAN, "it said no", "half a te", "openai", 418, "req_7", "teapot")

EXAMPLES: list[HeadraceError] = [
    HeadraceError("anything"),
    ConfigurationError("headrace.toml: no such setting"),
    EngineUnavailableError("embedded", "it ended"),
    InvalidRequestError("takes a str", "model"),
    InvalidRequestError("no such model", None, "openai", 404, "req_7", "model_not_found"),
    BatchError("the job cannot start"),
    BatchInputError("in.jsonl.gz", "ends too early", 7),
    RunError(SPAN, "it ended", "half"),
    ProviderError(*PROVIDER_FACTS),
    AuthenticationError(*PROVIDER_FACTS),
    RateLimitError(*PROVIDER_FACTS, 1.5),
    ProviderUnavailableError(*PROVIDER_FACTS),
    ProviderProtocolError(SPAN, "cut"),
    WorkerLostError(SPAN, "gone", "half"),
    RunTimeoutError(SPAN, "too long", "half", "idle", 2.5),
    QueueFullError(SPAN, "full", "", 1.5),
    BudgetExceededError(SPAN, "all is spent", "", 3600.0),
    PoisonRunError(SPAN, "two deaths"),
    OutputValidationError(SPAN, "Expected `int`, got `str`", '{"a": "b"}', "$.a", Usage(1, 2, 3, source="provider")),
    OutputValidationError(SPAN, "the model refused: No"),
    StreamConsumedError(SPAN),
    ForkedStreamError(SPAN),
    DuplicateRowsError(12, (("a", (1, 7)), ("b", (2, 3)))),
    DuplicateRowsError(1, (("a", (1, 7)),)),
    ChangedInputError("out.job", 3, 1, 2, (("changed", "a", 1), ("new", "b", 2)), (("model", "x", "y"),)),
    OutputConflictError("out.jsonl", "it is shorter than the journal says"),
    JobLockedError("out.job", "process 7 on host a"),
    JobLockedError("out.job"),
    JournalError("out.job", "it is of another version"),
    RecordWriteError("out.jsonl", "No space left on device", 3, 2048),
    ProtocolError("odd"),
    LocalProtocolError("odd"),
    RemoteProtocolError("odd"),
    ProtocolMismatchError(1, 2),
]

CLASSES = [item for item in vars(errors).values() if inspect.isclass(item) and issubclass(item, HeadraceError)]


def test_every_class_has_an_example_here() -> None:
    assert {type(example) for example in EXAMPLES} == set(CLASSES)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@each("error", EXAMPLES)
def test_an_error_survives_pickling_whole(error: HeadraceError, protocol: int) -> None:
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert twin.args == error.args
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)


@each("error", EXAMPLES)
def test_an_error_says_something_in_one_line(error: HeadraceError) -> None:
    assert str(error)
    assert "\n" not in str(error)


def test_the_facts_of_a_provider_s_error_are_in_its_text() -> None:
    assert str(RateLimitError(*PROVIDER_FACTS, 1.5)) == (
        f"run {SPAN}: openai: it said no (HTTP 418, teapot, request id req_7)"
    )
    assert str(ProviderProtocolError(SPAN, "cut", provider="openai")) == f"run {SPAN}: openai: cut"
    assert str(InvalidRequestError("no such model", None, "openai", 404)) == "openai: no such model (HTTP 404)"


def test_an_engine_without_an_address_is_named_in_words() -> None:
    assert str(EngineUnavailableError("embedded", "it ended")) == "this program's own engine: it ended"
    assert str(EngineUnavailableError("the engine", "it ended")) == "the engine: it ended"
    assert str(EngineUnavailableError("ipc:///run/x", "it ended")) == "no engine at ipc:///run/x: it ended"


def test_an_answer_that_does_not_fit_says_where() -> None:
    misfit = OutputValidationError(SPAN, "Expected `int`, got `str`", "", "$.a")
    assert str(misfit) == f"run {SPAN}: the answer does not fit at $.a: Expected `int`, got `str`"


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    """Read the indented names, and compare each with the class it stands under."""
    assert errors.__doc__ is not None
    stack: list[tuple[int, str]] = []
    parents: dict[str, str] = {}
    for line in errors.__doc__.splitlines():
        words = line.split()
        if line.startswith("    ") and words and words[0].endswith("Error"):
            indent = len(line) - len(line.lstrip())
            while stack and stack[-1][0] >= indent:
                stack.pop()
            parents[words[0]] = stack[-1][1] if stack else "Exception"
            stack.append((indent, words[0]))

    assert parents == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


# From the wire to an error.


@pytest.mark.parametrize(
    ("failed", "error"),
    [
        (Failed(SPAN, 1, 0, "invalid_request", "r", status_code=400), InvalidRequestError),
        (Failed(SPAN, 1, 0, "duplicate_span_id", "r"), InvalidRequestError),
        (Failed(SPAN, 1, 0, "authentication", "r", status_code=401), AuthenticationError),
        (Failed(SPAN, 1, 0, "rate_limit", "r", status_code=429), RateLimitError),
        (Failed(SPAN, 1, 0, "provider_unavailable", "r"), ProviderUnavailableError),
        (Failed(SPAN, 1, 0, "provider_protocol", "r"), ProviderProtocolError),
        (Failed(SPAN, 1, 0, "timeout", "r"), RunTimeoutError),
        (Failed(SPAN, 1, 0, "worker_stopping", "r"), WorkerLostError),
    ],
    ids=lambda value: value.kind if isinstance(value, Failed) else "",
)
def test_each_kind_of_failure_has_its_error(failed: Failed, error: type[HeadraceError]) -> None:
    raised = failure_error(failed, "openai", "half")

    assert type(raised) is error
    if isinstance(raised, RunError):
        assert (raised.span_id, raised.partial_text) == (SPAN, "half")


def test_a_failure_s_facts_arrive() -> None:
    failed = Failed(SPAN, 1, 0, "rate_limit", "r", status_code=429, request_id="req", code="c", retry_after=2.0)
    assert failure_error(failed, "openai", "").args == (SPAN, "r", "", "openai", 429, "req", "c", 2.0)

    expired = Failed(SPAN, 1, 0, "timeout", "r", clock="idle", limit=2.5)
    assert failure_error(expired, "openai", "half").args == (SPAN, "r", "half", "idle", 2.5)

    refused = Failed(SPAN, 1, 0, "invalid_request", "r", status_code=404, request_id="req", code="c")
    assert failure_error(refused, "openai", "").args == ("r", None, "openai", 404, "req", "c")


def test_a_span_id_that_runs_already_is_a_wrong_argument() -> None:
    refused = refusal_error(SPAN, Refuse(SPAN, 1, "duplicate_span_id", "it runs already"))

    assert isinstance(refused, InvalidRequestError)
    assert refused.argument == "span_id"


def test_a_full_queue_says_when_to_come_back() -> None:
    refused = refusal_error(SPAN, Refuse(SPAN, 1, "queue_full", "full", 1.5))

    assert isinstance(refused, QueueFullError)
    assert refused.retry_after == 1.5
