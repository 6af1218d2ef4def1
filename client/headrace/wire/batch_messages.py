"""The messages between a batch job and its batch process, which holds the keys and talks to the providers' batch APIs.

Both run the same version of Headrace, and only one starts the other: there is no hello, and no older peer. A frame is
four bytes of length (big-endian), then MessagePack. Each call has a number, and its answer has the same number. Answers
come in any order.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.wire.run_messages import Failed, Finished

BatchApiName = Literal["openai", "anthropic", "google", "google-embeddings", "background"]
"""Which batch API: ``background`` is OpenAI's Responses API with ``background``, one row a batch."""
BatchEnd = Literal["", "completed", "failed", "expired", "cancelled"]
"""How a batch ended. ``failed``: the provider ran none of its rows. Empty: it has not ended."""
RowOutcome = Literal["answered", "expired", "cancelled"]
"""``expired``, ``cancelled``: the batch ended before the provider ran the row. It is not billed."""


class BatchMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all messages of the batch process, and of their parts."""


class BatchGroup(BatchMessage, frozen=True):
    """What the rows of one batch have in common.

    ``provider``: its name in the settings. ``endpoint``: the API's path, where one batch has one endpoint. ``model``:
    where one batch has one model. ``headers``: those that the whole batch is sent with; never a key. ``window``: the
    completion window of background runs.
    """

    provider: str
    api: BatchApiName
    wire_format: str
    endpoint: str = ""
    model: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    window: str = ""

    def __repr__(self) -> str:
        return f"BatchGroup(provider={self.provider!r}, api={self.api!r}, model={self.model!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Return what may be shown: no header."""
        return [("provider", self.provider), ("api", self.api), ("model", self.model)]


class RowsFile(BatchMessage, frozen=True):
    """Where the rows of a batch are: from ``offset`` of a file of rows, so many. ``skipped``: numbers of rows to leave out."""

    path: str
    count: int
    offset: int = 0
    skipped: list[int] = []


class ProviderAnswer(BatchMessage, frozen=True):
    """What the provider's results say of one row, in the form of an answer over HTTP.

    ``index``: which text of an embeddings row, if the API takes one text a request. ``body``: JSON. ``status_code``: as
    the live API would answer.
    """

    number: int
    index: int = 0
    outcome: RowOutcome = "answered"
    status_code: int = 200
    request_id: str = ""
    body: bytes = b""


class RowToEncode(BatchMessage, frozen=True):
    """A row: its number, and its encoded RunRequest."""

    number: int
    request: bytes


class EncodedRow(BatchMessage, frozen=True):
    """What a row becomes: the group that its batch must have, its bytes, and how many requests and inputs it counts as.

    ``failed``: why the row cannot be sent; then the other fields mean nothing.
    """

    number: int
    group: BatchGroup | None = None
    size: int = 0
    requests: int = 1
    inputs: int = 0
    failed: Failed | None = None


class BatchProblem(BatchMessage, frozen=True):
    """Why a provider refused a batch. ``line``: of the input file, from 1; None if it is the batch as a whole."""

    message: str
    code: str = ""
    line: int | None = None
    argument: str | None = None


class RowToRead(BatchMessage, frozen=True):
    """A row with the provider's answers to it, to be read."""

    number: int
    span_id: str
    request: bytes
    answers: list[ProviderAnswer]


# Calls of the job.


class EncodeRows(BatchMessage, frozen=True, tag=1):
    """Say what each row becomes. ``background``: the completion window, if the rows are background runs."""

    call: int
    rows: list[RowToEncode]
    background: str = ""


class UploadRows(BatchMessage, frozen=True, tag=2):
    """Upload the rows of a batch as a file. ``token``: marks each row's id, and the file."""

    call: int
    group: BatchGroup
    token: str
    rows: RowsFile


class CreateBatch(BatchMessage, frozen=True, tag=3):
    """Create a batch, or start a background run: the step that costs money.

    ``file_id``: of the uploaded file; empty: the rows are in the request.
    """

    call: int
    group: BatchGroup
    token: str
    rows: RowsFile
    file_id: str = ""


class FindBatches(BatchMessage, frozen=True, tag=4):
    """Find batches that may have been created with this token, since ``since`` (seconds since 1970) at the earliest."""

    call: int
    group: BatchGroup
    token: str
    since: float
    requests: int


class PollBatch(BatchMessage, frozen=True, tag=5):
    """Ask how far a batch is."""

    call: int
    group: BatchGroup
    batch_id: str


class FetchAnswers(BatchMessage, frozen=True, tag=6):
    """Download the results of an ended batch to ``path``, as ProviderAnswers. ``results``: as the poll told."""

    call: int
    group: BatchGroup
    batch_id: str
    token: str
    rows: RowsFile
    results: list[str]
    path: str


class ReadAnswers(BatchMessage, frozen=True, tag=7):
    """Read the answers of rows, as the wire format reads live answers."""

    call: int
    group: BatchGroup
    rows: list[RowToRead]


class CancelBatch(BatchMessage, frozen=True, tag=8):
    """Cancel a batch. Rows that the provider has run stay in its results."""

    call: int
    group: BatchGroup
    batch_id: str


BatchCall = EncodeRows | UploadRows | CreateBatch | FindBatches | PollBatch | FetchAnswers | ReadAnswers | CancelBatch


# Answers of the batch process.


class RowsEncoded(BatchMessage, frozen=True, tag=21):
    """Answer to EncodeRows: the rows in the same order."""

    call: int
    rows: list[EncodedRow]


class RowsUploaded(BatchMessage, frozen=True, tag=22):
    """Answer to UploadRows."""

    call: int
    file_id: str


class BatchCreated(BatchMessage, frozen=True, tag=23):
    """Answer to CreateBatch."""

    call: int
    batch_id: str


class BatchesFound(BatchMessage, frozen=True, tag=24):
    """Answer to FindBatches: the oldest first.

    ``are_certain``: the token was found in them. Else only their time and their number of rows fit, and their results
    will show whether they are the ones.
    """

    call: int
    batch_ids: list[str]
    are_certain: bool


class BatchPolled(BatchMessage, frozen=True, tag=25):
    """Answer to PollBatch. ``answers``: the results, if the API tells them with the state."""

    call: int
    end: BatchEnd = ""
    done: int = 0
    failed: int = 0
    results: list[str] = []
    problems: list[BatchProblem] = []
    answers: list[ProviderAnswer] = []


class AnswersFetched(BatchMessage, frozen=True, tag=26):
    """Answer to FetchAnswers: how many results have the batch's token, and how many do not."""

    call: int
    own: int
    foreign: int


class AnswersRead(BatchMessage, frozen=True, tag=27):
    """Answer to ReadAnswers: the end of each row, in the same order."""

    call: int
    ends: list[Finished | Failed]


class BatchCancelled(BatchMessage, frozen=True, tag=28):
    """Answer to CancelBatch: the provider has been told."""

    call: int


class CallFailed(BatchMessage, frozen=True, tag=29):
    """Answer to any call that failed. ``may_have_arrived``: the provider may have carried it out all the same."""

    call: int
    failed: Failed
    may_have_arrived: bool = False


BatchAnswer = (
    RowsEncoded
    | RowsUploaded
    | BatchCreated
    | BatchesFound
    | BatchPolled
    | AnswersFetched
    | AnswersRead
    | BatchCancelled
    | CallFailed
)
