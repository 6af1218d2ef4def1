r"""The exceptions that Headrace raises.

::

    HeadraceError
        ConfigurationError              a setting cannot be used
        EngineUnavailableError          no engine answered in time, or it went away
        InvalidRequestError             a wrong argument, or 400, 404, 413, 422 from the provider
        RunError                        a run was accepted but did not finish
            ProviderError
                AuthenticationError         401, 403, or no key
                RateLimitError              429
                ProviderUnavailableError    5xx, overload, or no connection
                ProviderProtocolError       the response was not what the provider's API promises
            WorkerLostError             the worker process died or stopped answering
            RunTimeoutError             one of the run's time limits was reached
            QueueFullError              too many runs wait, or the wait would be too long
            BudgetExceededError         a spending limit of the settings is reached
            OutputValidationError       the answer does not fit the response_type
            PoisonRunError              two workers died with this run
        BatchError                      a batch job cannot start, or cannot go on
            BatchInputError                 its input cannot be read
            DuplicateRowsError              two rows have the same id
            ChangedInputError               the input is not that of the job's journal
            OutputConflictError             the output is not that of the job's journal
            JobLockedError                  another process runs this job
            JournalError                    the journal cannot be read or written
            RecordWriteError                finished rows cannot be written, for example because the disk is full
        StreamConsumedError             a stream can be iterated once
        ForkedStreamError               a stream belongs to the process that made it
        ProtocolError                   a fault between Headrace's own processes
            LocalProtocolError
            RemoteProtocolError
            ProtocolMismatchError       client and engine speak different major versions

An error has its facts as attributes; ``str()`` makes the text from them. The text has control characters escaped
(``\u001b``), so that a traceback that quotes a provider cannot steer a terminal. The attributes keep the control
characters. All arguments are positional, so that errors can be pickled. No error contains a provider key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.failed_attempt import FailedAttempt, attempts_text
from headrace.text.escaping import escaped

if TYPE_CHECKING:
    from headrace.usage import Usage


class HeadraceError(Exception):
    """The base of all errors that Headrace raises on purpose.

    Its attributes:

    * ``attempts`` (tuple of :class:`FailedAttempt`): the attempts of the run that failed, in their order. Empty if the
      error is not that of a run that a provider or a worker failed. If there were several, the text says what they met.
    """

    attempts: tuple[FailedAttempt, ...] = ()

    def __str__(self) -> str:
        words = self._words()
        return escaped(words if len(self.attempts) <= 1 else f"{words} ({attempts_text(self.attempts)})")

    def _words(self) -> str:
        return super().__str__()


class ConfigurationError(HeadraceError):
    """A setting or an environment variable cannot be used. The text names it and says what it takes."""


class EngineUnavailableError(HeadraceError):
    """No engine answered within the connect timeout, or the engine went away.

    Its attributes:

    * ``address`` (str): the engine's address; ``"embedded"`` for this program's own engine.
    * ``reason`` (str): what happened.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def _words(self) -> str:
        place = _ENGINES_WITHOUT_ADDRESS.get(self.address) or f"no engine at {self.address}"
        return f"{place}: {self.reason}"


_ENGINES_WITHOUT_ADDRESS = {"embedded": "this program's own engine", "the engine": "the engine"}
"""Address of an EngineUnavailableError that is no address → what the text calls the engine."""


class InvalidRequestError(HeadraceError):
    """An argument is wrong, or the provider refused the request as malformed (400, 404, 413, 422).

    A wrong argument is found before anything is sent.

    Its attributes:

    * ``reason`` (str): what is wrong, and what is allowed.
    * ``argument`` (str or None): the place, such as ``messages[2].content``; None if the provider refused.
    * ``provider``, ``request_id``, ``code`` (str or None), ``status_code`` (int or None): see :class:`ProviderError`;
      None if Headrace refused.
    """

    def __init__(
        self,
        reason: str,
        argument: str | None = None,
        provider: str | None = None,
        status_code: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(reason, argument, provider, status_code, request_id, code)
        self.reason = reason
        self.argument = argument
        self.provider = provider
        self.status_code = status_code
        self.request_id = request_id
        self.code = code

    def _words(self) -> str:
        if self.argument is not None:
            return f"{self.argument}: {self.reason}"
        if self.provider is not None:
            return _provider_text(self.provider, self.reason, self.status_code, self.request_id, self.code)
        return self.reason


class RunError(HeadraceError):
    """A run was accepted but did not finish.

    A plain RunError, not one of its subclasses, means that something failed inside this program's Headrace client.

    Its attributes:

    * ``span_id`` (str): the run's id.
    * ``reason`` (str): what happened.
    * ``partial_text`` (str): the text that had reached this process: the beginning of what the provider sent.
    """

    def __init__(self, span_id: str, reason: str, partial_text: str = "") -> None:
        super().__init__(span_id, reason, partial_text)
        self.span_id = span_id
        self.reason = reason
        self.partial_text = partial_text

    def _words(self) -> str:
        return f"run {self.span_id}: {self.reason}"


class ProviderError(RunError):
    """The provider refused the run, or failed to finish it.

    Its attributes, beside the attributes of :class:`RunError`:

    * ``provider`` (str): the provider's name.
    * ``status_code`` (int or None): the HTTP status; None if there was none.
    * ``request_id`` (str or None): the provider's id of the request, for its support.
    * ``code`` (str or None): the provider's own code or type of the error.
    """

    def __init__(
        self,
        span_id: str,
        reason: str,
        partial_text: str = "",
        provider: str = "",
        status_code: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(span_id, reason, partial_text)
        self.args = (span_id, reason, partial_text, provider, status_code, request_id, code)
        self.provider = provider
        self.status_code = status_code
        self.request_id = request_id
        self.code = code

    def _words(self) -> str:
        text = _provider_text(self.provider, self.reason, self.status_code, self.request_id, self.code)
        return f"run {self.span_id}: {text}"


class AuthenticationError(ProviderError):
    """The provider answered 401 or 403, or there is no key for it. The text names the variable to set."""


class RateLimitError(ProviderError):
    """The provider answered 429: too many requests.

    Its attributes, beside the attributes of :class:`ProviderError`:

    * ``retry_after`` (float or None): seconds to wait before the next try, as the provider says; None if it does not
      say.
    """

    def __init__(
        self,
        span_id: str,
        reason: str,
        partial_text: str = "",
        provider: str = "",
        status_code: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(span_id, reason, partial_text, provider, status_code, request_id, code)
        self.args = (*self.args, retry_after)
        self.retry_after = retry_after


class ProviderUnavailableError(ProviderError):
    """The provider answered 5xx or "overloaded", or the connection to it failed."""


class ProviderProtocolError(ProviderError):
    """The provider's response was not what its API promises: it was cut, garbled, or not an answer at all."""


class WorkerLostError(RunError):
    """The worker process that ran the run died or stopped answering. Nothing is known to be wrong with the request."""


class RunTimeoutError(RunError):
    """One of the run's time limits was reached.

    Its attributes, beside the attributes of :class:`RunError`:

    * ``clock`` (str): which limit: ``connect``, ``first_chunk``, ``idle``, ``total``, or ``reader`` (the stream's
      buffer was full, and the program read no event for that long).
    * ``limit`` (float): the limit in seconds.
    """

    def __init__(self, span_id: str, reason: str, partial_text: str = "", clock: str = "", limit: float = 0.0) -> None:
        super().__init__(span_id, reason, partial_text)
        self.args = (span_id, reason, partial_text, clock, limit)
        self.clock = clock
        self.limit = limit


class QueueFullError(RunError):
    """Too many runs wait for a worker: the engine did not accept this one.

    Its attributes, beside the attributes of :class:`RunError`:

    * ``retry_after`` (float or None): seconds after which there may be room, a guess; None if the engine cannot guess.
    """

    def __init__(self, span_id: str, reason: str, partial_text: str = "", retry_after: float | None = None) -> None:
        super().__init__(span_id, reason, partial_text)
        self.args = (span_id, reason, partial_text, retry_after)
        self.retry_after = retry_after


class BudgetExceededError(RunError):
    """A spending limit of the settings (``max_cost``) is reached. Nothing was sent for this run.

    Its attributes, beside the attributes of :class:`RunError`:

    * ``retry_after`` (float or None): seconds until the limit's next day begins (UTC).
    """

    def __init__(self, span_id: str, reason: str, partial_text: str = "", retry_after: float | None = None) -> None:
        super().__init__(span_id, reason, partial_text)
        self.args = (span_id, reason, partial_text, retry_after)
        self.retry_after = retry_after


class PoisonRunError(RunError):
    """The run is not tried again, because it seems to kill workers.

    Two workers died while they ran it, or a worker hung and had no other run.
    """


class OutputValidationError(RunError):
    """The run has ended, but its answer does not fit ``response_type``: so there is no ``parsed``.

    Its attributes, beside the attributes of :class:`RunError`:

    * ``text`` (str): the whole answer.
    * ``path`` (str): the place in the answer, such as ``$.lines[2].price``; ``$`` is the whole answer.
    * ``usage`` (Usage or None): the tokens of the run.
    * ``cost`` (float or None): what the run cost, in US dollars; ``None`` if the price or the usage is not known.

    ``reason`` says what is wrong: a value that does not fit, a refusal with its words, or that the answer was cut off.
    """

    def __init__(
        self,
        span_id: str,
        reason: str,
        text: str = "",
        path: str = "$",
        usage: Usage | None = None,
        cost: float | None = None,
    ) -> None:
        super().__init__(span_id, reason, text)
        self.args = (span_id, reason, text, path, usage, cost)
        self.text = text
        self.path = path
        self.usage = usage
        self.cost = cost

    def _words(self) -> str:
        place = "" if self.path == "$" else f"the answer does not fit at {self.path}: "
        return f"run {self.span_id}: {place}{self.reason}"


class BatchError(HeadraceError):
    """A batch job cannot start, or cannot go on."""


class BatchInputError(BatchError):
    """The input of a batch job cannot be read: the file is damaged, or has changed, or a library to read it is missing.

    Its attributes:

    * ``name`` (str): the file.
    * ``reason`` (str): what is wrong, and what to do.
    * ``number`` (int or None): the line or the record; None if it is the file as a whole.
    """

    def __init__(self, name: str, reason: str, number: int | None = None) -> None:
        super().__init__(name, reason, number)
        self.name = name
        self.reason = reason
        self.number = number

    def _words(self) -> str:
        place = self.name if self.number is None else f"{self.name}, line {self.number}"
        return f"{place}: {self.reason}"


class DuplicateRowsError(BatchError):
    """Two or more rows of a batch job have the same id. Nothing was sent.

    Its attributes:

    * ``count`` (int): how many ids are used more than once.
    * ``duplicates`` (tuple of (str, tuple of int)): the first 10 of these ids, each with the lines that have it (10 at
      most).
    """

    def __init__(self, count: int, duplicates: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
        super().__init__(count, duplicates)
        self.count = count
        self.duplicates = duplicates

    def _words(self) -> str:
        named = "; ".join(f"{name!r} in lines {', '.join(map(str, lines))}" for name, lines in self.duplicates)
        more = f"; and {self.count - len(self.duplicates)} more" if self.count > len(self.duplicates) else ""
        ids = "1 id is" if self.count == 1 else f"{self.count} ids are"
        return f"{ids} used by more than one row: {named}{more}. Give each row an id of its own. Nothing was sent"


class ChangedInputError(BatchError):
    """The rows of a batch job are not the rows that its journal knows: the input or the parameters changed.

    Nothing was sent. The job goes on with ``changed=True`` (``--changed``), or begins anew with ``force=True``
    (``--force``).

    Its attributes:

    * ``directory`` (str): the job's directory.
    * ``changed``, ``new``, ``missing`` (int): rows with the same id that ask for something else; rows that the journal
      does not know; rows that the journal knows, and that are gone.
    * ``examples`` (tuple of (str, str, int)): the first rows: ``changed``, ``new`` or ``missing``, the id, and the line
      (of a missing row: its line before). 5 of each at most.
    * ``settings`` (tuple of (str, str, str)): the settings of the job that are different: name, value before, value now.
    """

    def __init__(
        self,
        directory: str,
        changed: int = 0,
        new: int = 0,
        missing: int = 0,
        examples: tuple[tuple[str, str, int], ...] = (),
        settings: tuple[tuple[str, str, str], ...] = (),
    ) -> None:
        super().__init__(directory, changed, new, missing, examples, settings)
        self.directory = directory
        self.changed = changed
        self.new = new
        self.missing = missing
        self.examples = examples
        self.settings = settings

    def _words(self) -> str:
        counts = [(self.changed, "changed"), (self.new, "new"), (self.missing, "missing")]
        found = ", ".join(f"{count:,} {word}" for count, word in counts if count)
        named = ", ".join(f"{name!r} (line {line}, {what})" for what, name, line in self.examples)
        settings = "".join(
            f"; {name} was {repr(was) if was else 'not given'} and is {repr(now) if now else 'not given'}"
            for name, was, now in self.settings
        )
        return (
            f"the rows are not those of the journal in {self.directory}: {found}, such as {named}{settings}. "
            "To run the changed and new rows, and to remove the records of changed and missing rows, add --changed "
            "(changed=True). To run all rows again, add --force (force=True). Nothing was sent"
        )


class OutputConflictError(BatchError):
    """A file for the output of a batch job has content that the job's journal does not know, or has lost some.

    Nothing was sent, and the file was not changed.

    Its attributes: ``path`` (str), the file; ``reason`` (str), what is wrong and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def _words(self) -> str:
        return f"{self.path}: {self.reason}"


class JobLockedError(BatchError):
    """Another process runs a job with the same output. Wait for its end, or stop it.

    Its attributes:

    * ``path`` (str): the output of the job, or the file of another job that this one would write to.
    * ``holder`` (str): the other process, such as ``process 4711 on host a``; empty if it is not known, or if the file
      belongs to another job.
    """

    def __init__(self, path: str, holder: str = "") -> None:
        super().__init__(path, holder)
        self.path = path
        self.holder = holder

    def _words(self) -> str:
        from shlex import quote

        who = self.holder or "another process"
        look = f"look at it with `headrace batch status {quote(self.path)}`, " if self.holder else ""
        return f"{self.path}: {who} runs a job with this output; {look}wait until it ends, stop it, or choose another output"


class JournalError(BatchError):
    """The journal of a batch job cannot be read or written.

    Its attributes: ``path`` (str), the file or the directory; ``reason`` (str), what is wrong and what to do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def _words(self) -> str:
        return f"{self.path}: {self.reason}"


class RecordWriteError(BatchError):
    """Finished rows of a batch job cannot be written, for example because the disk is full.

    None of these rows counts as done. The files are as they were before. Make room, and start the job again: it runs
    these rows again.

    Its attributes:

    * ``path`` (str): the file that cannot be written.
    * ``reason`` (str): what the operating system says.
    * ``rows`` (int): how many finished rows were not written.
    * ``missing_bytes`` (int): how much room they need.
    """

    def __init__(self, path: str, reason: str, rows: int = 0, missing_bytes: int = 0) -> None:
        super().__init__(path, reason, rows, missing_bytes)
        self.path = path
        self.reason = reason
        self.rows = rows
        self.missing_bytes = missing_bytes

    def _words(self) -> str:
        rows = "1 finished row was" if self.rows == 1 else f"{self.rows} finished rows were"
        return (
            f"{self.path}: {self.reason}: {rows} not recorded ({self.missing_bytes} bytes). "
            "Make room or repair the cause, and start the job again: these rows run again, recorded rows do not"
        )


class StreamConsumedError(HeadraceError):
    """A stream was iterated a second time, or by a second thread or task at the same time.

    The text is in ``stream.result.result().text``.

    Its attributes: ``span_id`` (str), the run's id; ``reason`` (str).
    """

    def __init__(self, span_id: str, reason: str = "was iterated already") -> None:
        super().__init__(span_id, reason)
        self.span_id = span_id
        self.reason = reason

    def _words(self) -> str:
        return f"stream {self.span_id} {self.reason}; its text is in stream.result.result().text"


class ForkedStreamError(HeadraceError):
    """A stream was used in a forked child. It belongs to the process that made it; make a new run in the child.

    Its attributes: ``span_id`` (str), the run's id.
    """

    def __init__(self, span_id: str) -> None:
        super().__init__(span_id)
        self.span_id = span_id

    def _words(self) -> str:
        return f"stream {self.span_id} was made before the fork; make a new run in the child (the client itself works)"


class ProtocolError(HeadraceError):
    """A message between Headrace's processes broke the protocol of ``docs/protocol.md``."""


class LocalProtocolError(ProtocolError):
    """This process was about to break the protocol."""


class RemoteProtocolError(ProtocolError):
    """The other process broke the protocol."""


class ProtocolMismatchError(ProtocolError):
    """The other process speaks another major version of the protocol.

    Its attributes: ``ours`` and ``theirs`` (int), the two versions.
    """

    def __init__(self, ours: int, theirs: int) -> None:
        super().__init__(ours, theirs)
        self.ours = ours
        self.theirs = theirs

    def _words(self) -> str:
        return (
            f"this process speaks protocol {self.ours}, the other side {self.theirs}: "
            "run the same headrace version in client and engine"
        )


def _provider_text(
    provider: str, reason: str, status_code: int | None, request_id: str | None, code: str | None
) -> str:
    facts = [
        f"HTTP {status_code}" if status_code is not None else "",
        code or "",
        f"request id {request_id}" if request_id else "",
    ]
    detail = ", ".join(fact for fact in facts if fact)
    return f"{provider}: {reason} ({detail})" if detail else f"{provider}: {reason}"
