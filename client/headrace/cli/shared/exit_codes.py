"""The exit codes of ``headrace``, and which error has which code. Scripts depend on these numbers."""

from __future__ import annotations

import enum

from headrace.errors import (
    AuthenticationError,
    BatchInputError,
    ChangedInputError,
    ConfigurationError,
    DuplicateRowsError,
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    JobLockedError,
    OutputConflictError,
    QueueFullError,
    RateLimitError,
    RunTimeoutError,
)


class ExitCode(enum.IntEnum):
    """Exit status of ``headrace``."""

    OK = 0  # done
    FAILED = 1  # the run failed: the provider, its connection or a worker; the same command may work later
    USAGE = 2  # the command line, the settings or the request is wrong; correct it first
    UNAVAILABLE = 3  # no engine answered, or a server cannot start
    UNAUTHORIZED = 4  # there is no key, or the provider refuses it
    TRY_LATER = 5  # the provider's limit, a full queue, or a batch job that another process runs
    TIMED_OUT = 6  # the run took longer than its timeout
    ROWS_FAILED = 7  # a batch job came to its end, and some rows failed
    UNFINISHED = 8  # a batch job stopped at --max-cost, and some rows are left
    INTERRUPTED = 130  # Ctrl-C; shells report SIGINT like this
    OUTPUT_CLOSED = 141  # nobody reads the output any more, as in `| head`; shells report SIGPIPE like this


class CommandError(Exception):
    """A command cannot do its work. ``text`` is one line: what happened, and what to do next."""

    def __init__(self, code: ExitCode, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


def exit_code(error: HeadraceError) -> ExitCode:
    """Return the exit code for an error."""
    match error:
        case ConfigurationError() | InvalidRequestError():
            return ExitCode.USAGE
        case BatchInputError() | DuplicateRowsError() | ChangedInputError() | OutputConflictError():
            return ExitCode.USAGE
        case EngineUnavailableError():
            return ExitCode.UNAVAILABLE
        case AuthenticationError():
            return ExitCode.UNAUTHORIZED
        case RateLimitError() | QueueFullError() | JobLockedError():
            return ExitCode.TRY_LATER
        case RunTimeoutError():
            return ExitCode.TIMED_OUT
        case _:
            return ExitCode.FAILED
