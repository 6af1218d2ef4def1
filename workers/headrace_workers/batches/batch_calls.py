"""BatchCalls: carries out the calls of a batch job: finds the provider, the key and the batch API, and answers.

Any number of threads may carry out calls at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.settings.known_secrets import provider_secrets, proxy_secrets
from headrace.settings.settings import Settings
from headrace.settings.wire_format_names import OPENAI_BY_MODEL
from headrace.text.secret_mask import SecretMask
from headrace.wire.batch_frames import StoredRow, encode_batch_frame
from headrace.wire.batch_messages import (
    AnswersFetched,
    AnswersRead,
    BatchAnswer,
    BatchApiName,
    BatchCall,
    BatchCancelled,
    BatchCreated,
    BatchGroup,
    CallFailed,
    CancelBatch,
    CreateBatch,
    EncodedRow,
    EncodeRows,
    FetchAnswers,
    FindBatches,
    PollBatch,
    ReadAnswers,
    RowsEncoded,
    RowsFile,
    RowsUploaded,
    RowToEncode,
    RowToRead,
    UploadRows,
)
from headrace.wire.codec import decode_request
from headrace.wire.messages import Failed, Finished
from headrace.wire.run_request import RunRequest
from headrace_workers.batches.answer_reading import failed_of, read_answer
from headrace_workers.batches.anthropic_batches import AnthropicBatches
from headrace_workers.batches.background_runs import BackgroundRuns
from headrace_workers.batches.batch_api import BatchAccess, BatchApi
from headrace_workers.batches.batch_http import BatchCallError, BatchHttp
from headrace_workers.batches.batch_rows import BatchRows
from headrace_workers.batches.google_batches import GoogleBatches, GoogleEmbeddingBatches
from headrace_workers.batches.openai_batches import OpenAIBatches
from headrace_workers.masking import RunMasks, masked_failure
from headrace_workers.providers.openai_choice import CHAT, RESPONSES
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure, WireFormat
from headrace_workers.worker_settings import Prepared, Providers, api_for

logger = logging.getLogger(__name__)

_APIS: dict[BatchApiName, BatchApi] = {
    "openai": OpenAIBatches(),
    "anthropic": AnthropicBatches(),
    "google": GoogleBatches(),
    "google-embeddings": GoogleEmbeddingBatches(),
    "background": BackgroundRuns(),
}
_IN_BACKGROUND = (OPENAI_BY_MODEL, CHAT, RESPONSES)
"""Wire formats of providers that may have background runs."""
_ANTHROPIC = "anthropic"
_GOOGLE = "google"
_KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")


class BatchCalls:
    """Carries out calls with the keys of ``environ``."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._providers = Providers(settings, environ)
        secrets = [*provider_secrets(settings, environ), *self._providers.keys.secrets()]
        self.masks = RunMasks([*secrets, *proxy_secrets(environ)])
        self._http = BatchHttp(settings.engine.connect_timeout)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def answer(self, call: BatchCall) -> BatchAnswer:
        """Carry out a call, and return its answer. Raises nothing."""
        try:
            return self._carried_out(call)
        except BatchCallError as error:
            failure = masked_failure(error.failure, self.masks.mask_of(None, None))
            return CallFailed(call.call, failed_of(failure), error.may_have_arrived)
        except ProviderFailedError as error:
            failure = masked_failure(error.failure, self.masks.mask_of(None, None))
            return CallFailed(call.call, failed_of(failure))
        except OSError as error:
            failure = ProviderFailure("invalid_request", f"a file of the job cannot be used: {error}")
            return CallFailed(call.call, failed_of(failure))
        except Exception as error:
            logger.exception("call of batch job failed", extra={"type": type(call).__name__})
            reason = f"the batch process failed at {type(call).__name__}: {type(error).__name__}"
            failure = ProviderFailure("provider_protocol", reason)
            return CallFailed(call.call, failed_of(failure), may_have_arrived=True)

    def _carried_out(self, call: BatchCall) -> BatchAnswer:
        match call:
            case EncodeRows():
                return RowsEncoded(call.call, [self._encoded(row, call.background) for row in call.rows])
            case UploadRows():
                rows = self._rows(call.rows, call.token, call.group)
                return RowsUploaded(call.call, _api_of(call.group).upload(self._access(call.group), rows))
            case CreateBatch():
                rows = self._rows(call.rows, call.token, call.group)
                batch_id = _api_of(call.group).create(self._access(call.group), rows, call.file_id)
                return BatchCreated(call.call, batch_id)
            case FindBatches():
                found = _api_of(call.group).find(self._access(call.group), call.token, call.since, call.requests)
                return msgspec.structs.replace(found, call=call.call)
            case PollBatch():
                polled = _api_of(call.group).poll(self._access(call.group), call.batch_id)
                return msgspec.structs.replace(polled, call=call.call)
            case FetchAnswers():
                return self._fetched(call)
            case ReadAnswers():
                return AnswersRead(call.call, [self._read(row, call.group) for row in call.rows])
            case CancelBatch():
                _api_of(call.group).cancel(self._access(call.group), call.batch_id)
                return BatchCancelled(call.call)
            case _:
                assert_never(call)

    def _encoded(self, row: RowToEncode, background: str) -> EncodedRow:
        try:
            request = decode_request(row.request)
        except RemoteProtocolError as error:
            return EncodedRow(row.number, failed=failed_of(ProviderFailure("invalid_request", str(error))))
        try:
            settings, _ = self._providers.access(request.provider)
            if background and settings.api not in _IN_BACKGROUND:
                raise ProviderFailedError(_no_background(request))  # noqa: TRY301 - one place makes the answer
            prepared = self._prepared(request, background)
            api = _batch_api_of(prepared.wire_format, request, background)
            group = _APIS[api].group(prepared.wire_format, prepared.request, request.model, settings)
            group = msgspec.structs.replace(group, window=background) if background else group
            bodies = _APIS[api].bodies(prepared.request)
        except ProviderFailedError as error:
            return EncodedRow(row.number, failed=failed_of(masked_failure(error.failure, self._mask())))
        return EncodedRow(row.number, group, sum(map(len, bodies)), len(bodies), len(request.inputs))

    def _prepared(self, request: RunRequest, background: str) -> Prepared:
        return self._providers.prepare(request, None, wire_format=RESPONSES if background else "")

    def _rows(self, file: RowsFile, token: str, group: BatchGroup) -> BatchRows:
        def bodies(row: StoredRow) -> list[bytes]:
            try:
                request = decode_request(row.request)
            except RemoteProtocolError as error:
                raise ProviderFailedError(ProviderFailure("invalid_request", str(error))) from None
            return _api_of(group).bodies(self._prepared(request, group.window).request)

        return BatchRows(file, token, bodies)

    def _access(self, group: BatchGroup) -> BatchAccess:
        settings, key = self._providers.access(group.provider)
        declared = self._providers.wire_format(group.wire_format)
        name = _KEY_HEADERS[0]
        if group.api == "anthropic":
            name = _KEY_HEADERS[1]
        elif group.api in {"google", "google-embeddings"}:
            name = _KEY_HEADERS[2]
        headers = [(name, f"Bearer {key}" if name == _KEY_HEADERS[0] else key)] if key else []
        return BatchAccess(self._http, settings, declared.api, headers, group)

    def _fetched(self, call: FetchAnswers) -> AnswersFetched:
        """Write the results to a file. It gets its name when it is whole."""
        rows = self._rows(call.rows, call.token, call.group)
        own = foreign = 0
        part = Path(f"{call.path}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            for answer in _api_of(call.group).fetch(self._access(call.group), call.batch_id, call.results, rows):
                if answer is None:
                    foreign += 1
                else:
                    own += 1
                    file.write(encode_batch_frame(answer))
        part.replace(call.path)
        return AnswersFetched(call.call, own, foreign)

    def _read(self, row: RowToRead, group: BatchGroup) -> Finished | Failed:
        try:
            request = decode_request(row.request)
            declared = self._providers.wire_format(group.wire_format)
            settings, _ = self._providers.access(group.provider)
            api = api_for(request, settings, declared)
            answer = _api_of(group).joined(row.answers)
        except RemoteProtocolError as error:
            return Failed(row.span_id, 1, 0, "invalid_request", str(error))
        except ProviderFailedError as error:
            return msgspec.structs.replace(failed_of(error.failure), span_id=row.span_id)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            reason = "the results of the batch are not in the form of a batch"
            return Failed(row.span_id, 1, 0, "provider_protocol", reason, status_code=200)
        if answer.outcome != "answered":
            reason = f"the provider did not run the row: its batch has {answer.outcome}"
            return Failed(row.span_id, 1, 0, "provider_unavailable", reason, code=f"batch_{answer.outcome}")
        return read_answer(answer, request, api, group.wire_format, row.span_id, self._mask())

    def _mask(self) -> SecretMask:
        return self.masks.mask_of(None, None)


def _no_background(request: RunRequest) -> ProviderFailure:
    reason = (
        f"background runs are for models of OpenAI, and {request.provider} has none: run the row without background"
    )
    return ProviderFailure("invalid_request", reason, argument="model")


def _api_of(group: BatchGroup) -> BatchApi:
    return _APIS[group.api]


def _batch_api_of(declared: WireFormat, request: RunRequest, background: str) -> BatchApiName:
    """Return the batch API of a wire format. Raises ProviderFailedError if it has none."""
    if background:
        if request.inputs:
            reason = (
                "background runs have no embeddings: run the row without background, or in a batch (--via-provider)"
            )
            raise ProviderFailedError(ProviderFailure("invalid_request", reason, argument="input"))
        return "background"
    if declared.name in (CHAT, RESPONSES):
        return "openai"
    if declared.name == _ANTHROPIC:
        return "anthropic"
    if declared.name == _GOOGLE:
        return "google-embeddings" if request.inputs else "google"
    reason = f"Headrace knows no batch API for the wire format {declared.name}: run the row without --via-provider"
    raise ProviderFailedError(ProviderFailure("invalid_request", reason, argument="model"))
