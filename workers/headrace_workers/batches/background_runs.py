"""OpenAI's background runs: a request to the Responses API with ``background``, which is asked for until it ends.

The API has no list: a run whose creation was not answered cannot be found again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.wire.batch_messages import BatchesFound, BatchGroup, BatchPolled, ProviderAnswer
from headrace_workers.batches.batch_api import BatchAccess, EncodedRows, only, refused, text_in
from headrace_workers.batches.batch_http import BatchCallError, unexpected
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.shared.wire_format import ProviderSettings, WireFormat

_RUNNING = ("queued", "in_progress")


class BackgroundRuns:
    """Background runs, one row a batch."""

    joined = staticmethod(only)

    def group(self, declared: WireFormat, sent: HttpRequest, model: str, settings: ProviderSettings) -> BatchGroup:
        """Return the group of a row. The caller adds the completion window."""
        del sent, model
        return BatchGroup(settings.name, "background", declared.name)

    def bodies(self, sent: HttpRequest) -> list[bytes]:
        """Return the body of the live request."""
        return [sent.body]

    def upload(self, access: BatchAccess, rows: EncodedRows) -> str:  # noqa: ARG002
        """Do nothing: there is no file."""
        return ""

    def create(self, access: BatchAccess, rows: EncodedRows, file_id: str) -> str:  # noqa: ARG002
        """Start the run. The provider stores its answer until it is fetched: it keeps no other background runs."""
        found = next(rows.bodies(), None)
        if found is None:
            raise refused("the row is gone from its file")
        body: dict[str, Any] = msgspec.json.decode(found[1][0])
        options = body.get("background_options")
        window = {"completion_window": access.group.window}
        body |= {"background": True, "store": True, "background_options": (options or {}) | window}
        try:
            made = access.post("/responses", body)
        except BatchCallError as error:
            if error.failure.status_code is not None:  # an answer with an error: the run was not started
                error.may_have_arrived = False
            raise
        run_id = text_in(made.get("id"))
        if not run_id:
            raise unexpected("the response has no id")
        return run_id

    def find(self, access: BatchAccess, token: str, since: float, requests: int) -> BatchesFound:  # noqa: ARG002
        """Find nothing: the API has no list."""
        return BatchesFound(0, [], are_certain=True)

    def poll(self, access: BatchAccess, batch_id: str) -> BatchPolled:
        """Get the response. Once it has ended, it is the answer."""
        reply = access.http.call(access.api, "GET", access.url(f"/responses/{batch_id}"), access.headers)
        status = text_in(reply.json().get("status"))
        if status in _RUNNING:
            return BatchPolled(0)
        if status == "cancelled":
            return BatchPolled(0, "cancelled", answers=[ProviderAnswer(0, outcome="cancelled")])
        if not status:
            raise unexpected("the response has no status")
        request_id = reply.headers.get("x-request-id", "")
        return BatchPolled(0, "completed", done=1, answers=[ProviderAnswer(0, request_id=request_id, body=reply.body)])

    def fetch(
        self,
        access: BatchAccess,
        batch_id: str,
        results: list[str],
        rows: EncodedRows,
    ) -> Iterator[ProviderAnswer | None]:
        """Get the answer again, for a job that was killed after the run had ended."""
        del results
        number = next(row.number for row, _ in rows.bodies())
        for answer in self.poll(access, batch_id).answers:
            yield msgspec.structs.replace(answer, number=number)

    def cancel(self, access: BatchAccess, batch_id: str) -> None:
        """Cancel the run."""
        access.post(f"/responses/{batch_id}/cancel")
