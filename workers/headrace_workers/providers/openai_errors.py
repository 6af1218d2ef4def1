"""Temporary: see failures."""
from headrace_workers.providers.failures import *  # noqa
from headrace_workers.providers.failures import describe, failure_in_stream, protocol_failure, read_error, request_failure  # noqa
