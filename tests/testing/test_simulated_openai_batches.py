"""The simulated batch API and background responses of OpenAI, as the official client uses them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from headrace.testing import Script, SimulatedProvider
from tests.testing.sdks import Sdk

openai = Sdk("openai")

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


@pytest.fixture
def provider(shared: SimulatedProvider) -> SimulatedProvider:
    shared.clear()
    shared.recover()
    return shared


@pytest.fixture(scope="module")
def shared_client(shared: SimulatedProvider) -> Iterator[Any]:
    with openai.OpenAI(base_url=shared.base_url, api_key=shared.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def client(provider: SimulatedProvider, shared_client: Any) -> Any:
    return shared_client


def chat_row(number: int, **body: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"question {number}"}]} | body
    return {"custom_id": f"row-{number}", "method": "POST", "url": CHAT, "body": body}


def upload(client: Any, rows: list[Any]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode() + b"\n"), purpose="batch")
    return str(file.id)


def create(client: Any, rows: list[Any], endpoint: str = CHAT, **arguments: Any) -> Any:
    return client.batches.create(
        input_file_id=upload(client, rows), endpoint=endpoint, completion_window="24h", **arguments
    )


def lines_of(client: Any, file_id: str | None) -> list[Any]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_is_answered_as_live_requests_are_and_its_output_has_another_order(
    provider: SimulatedProvider, client: Any
) -> None:
    provider.enqueue(Script(text="one"), Script(status=429), Script(text="three"), Script(silent=True))
    rows = [*(chat_row(number) for number in range(4)), chat_row(4, temperature=7), chat_row(5, stream=True)]

    batch = create(client, rows, metadata={"job": "j1"})
    assert (batch.status, batch.request_counts.total) == ("validating", 6)
    batch = client.batches.retrieve(batch.id)

    assert (batch.status, batch.metadata, batch.model) == ("completed", {"job": "j1"}, "gpt-4o")
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 4)
    assert batch.usage.output_tokens == 2
    done, failed = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert [line["custom_id"] for line in done] == ["row-2", "row-0"]
    answers = [openai.types.chat.ChatCompletion.model_validate(line["response"]["body"]) for line in done]
    assert [answer.choices[0].message.content for answer in answers] == ["three", "one"]
    told = [(line["custom_id"], (line["response"] or {}).get("status_code"), line["error"]) for line in failed]
    assert [one[:2] for one in told] == [("row-5", 400), ("row-4", 400), ("row-3", None), ("row-1", 429)]
    assert told[2][2]["code"] == "server_error"
    logged = [record for record in provider.requests() if record.batch_id == batch.id]
    assert [(record.custom_id, record.path, record.status) for record in logged] == [
        ("row-0", CHAT, 200), ("row-1", CHAT, 429), ("row-2", CHAT, 200), ("row-3", CHAT, 500),
        ("row-4", CHAT, 400), ("row-5", CHAT, 400),
    ]  # fmt: skip
    assert logged[0].sent_text == "one"


def test_a_batch_goes_step_by_step(provider: SimulatedProvider, client: Any) -> None:
    provider.batches.pace(None)
    batch = create(client, [chat_row(number) for number in range(3)])

    def state() -> tuple[str, int]:
        seen = client.batches.retrieve(batch.id)
        return seen.status, seen.request_counts.completed

    assert state() == ("validating", 0)
    provider.batches.advance(0)
    assert state() == ("in_progress", 0)
    provider.batches.advance(2, batch_id=batch.id)
    assert state() == ("in_progress", 2)
    provider.batches.advance(1)
    assert state() == ("finalizing", 3)
    provider.batches.advance()
    assert state() == ("completed", 3)
    assert provider.batches.all()[-1].ending == "completed"


def test_a_batch_that_expires_has_what_was_done_and_names_the_rest(provider: SimulatedProvider, client: Any) -> None:
    provider.batches.pace(None)
    batch = create(client, [chat_row(number) for number in range(3)])
    provider.batches.advance(1)

    provider.batches.end(batch.id, "expired")

    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.expired_at is not None) == ("expired", True)
    assert [line["custom_id"] for line in lines_of(client, batch.output_file_id)] == ["row-0"]
    rest = lines_of(client, batch.error_file_id)
    assert [(line["custom_id"], line["response"], line["error"]["code"]) for line in rest] == [
        ("row-2", None, "batch_expired"),
        ("row-1", None, "batch_expired"),
    ]


def test_a_cancelled_batch_keeps_what_was_done(provider: SimulatedProvider, client: Any) -> None:
    provider.batches.pace(None)
    batch = create(client, [chat_row(number) for number in range(3)])
    provider.batches.advance(1)

    assert client.batches.cancel(batch.id).status == "cancelling"
    provider.batches.advance()

    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.error_file_id) == ("cancelled", None)
    assert [line["custom_id"] for line in lines_of(client, batch.output_file_id)] == ["row-0"]
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_a_bad_file_fails_the_batch_with_its_lines(provider: SimulatedProvider, client: Any) -> None:
    rows = [
        chat_row(1), "{no json", chat_row(1), chat_row(2, model="gpt-5"), chat_row(3) | {"url": "/v1/embeddings"},
        {"custom_id": "row-4"}, chat_row(5) | {"method": "GET"},
    ]  # fmt: skip

    batch = create(client, rows)
    batch = client.batches.retrieve(batch.id)

    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert [(fault.line, fault.code) for fault in batch.errors.data] == [
        (2, "invalid_json_line"), (3, "duplicate_custom_id"), (4, "mismatched_model"), (5, "mismatched_url"),
        (6, "missing_required_parameter"), (7, "invalid_method"),
    ]  # fmt: skip
    provider.batches.fail_next("token_limit_exceeded", "too many tokens are queued", 1)
    batch = client.batches.retrieve(create(client, [chat_row(1)]).id)
    assert [(fault.line, fault.code) for fault in batch.errors.data] == [(1, "token_limit_exceeded")]
    assert not [record for record in provider.requests() if record.batch_id]


def test_responses_and_embeddings_are_answered_in_batches_too(provider: SimulatedProvider, client: Any) -> None:
    kinds = {
        "/v1/responses": {"model": "gpt-4o", "input": "hi"},
        "/v1/embeddings": {"model": "text-embedding-3-small", "input": ["a", "b"]},
    }
    for endpoint, body in kinds.items():
        row = {"custom_id": "row-1", "method": "POST", "url": endpoint, "body": body}
        batch = client.batches.retrieve(create(client, [row], endpoint).id)
        (line,) = lines_of(client, batch.output_file_id)
        assert line["response"]["body"]["object"] in {"response", "list"}


def test_batches_are_listed_in_pages_for_their_key_only(client: Any) -> None:
    ids = [create(client, [chat_row(1)]).id for _ in range(3)]

    page = client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == [ids[2], ids[1]]
    assert page.has_more
    assert next(iter(client.batches.list(limit=1, after=ids[1]))).id == ids[0]
    other = client.with_options(api_key="sk-other")
    assert other.batches.list().data == []
    with pytest.raises(openai.NotFoundError):
        other.batches.retrieve(ids[0])
    with pytest.raises(openai.BadRequestError):
        create(client, [chat_row(1)], endpoint="/v1/unknown")


def test_a_lost_reply_leaves_a_batch_that_can_be_found(provider: SimulatedProvider, client: Any) -> None:
    file_id = upload(client, [chat_row(1)])
    provider.batches.lose_replies()

    def submit() -> Any:
        return client.batches.create(
            input_file_id=file_id, endpoint=CHAT, completion_window="24h", metadata={"token": "t1"}
        )

    with pytest.raises(openai.APIConnectionError):
        submit()

    assert client.batches.list(limit=1).data[0].metadata == {"token": "t1"}
    assert submit().id != client.batches.list(limit=2).data[1].id
    provider.begin_outage(503)
    with pytest.raises(openai.InternalServerError):
        submit()
    provider.end_outage()
    assert client.files.delete(file_id).deleted


def test_a_background_response_is_queued_and_then_completed(provider: SimulatedProvider, client: Any) -> None:
    provider.batches.pace(None)
    provider.enqueue(Script(text="late"))
    options = {"completion_window": "2h"}

    response = client.responses.create(model="gpt-4o", input="hi", background=True, background_options=options)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    provider.batches.advance(0)
    assert client.responses.retrieve(response.id).status == "in_progress"
    provider.batches.advance()

    response = client.responses.retrieve(response.id)
    assert (response.status, response.output_text, response.usage.output_tokens) == ("completed", "late", 1)
    assert provider.requests()[0].body["background_options"] == options


def test_a_background_response_can_fail_expire_or_be_cancelled(provider: SimulatedProvider, client: Any) -> None:
    def begin(**arguments: Any) -> str:
        return str(client.responses.create(model="gpt-4o", input="hi", background=True, **arguments).id)

    provider.enqueue(Script(text="a b c", error_after=1))
    failed = client.responses.retrieve(begin())
    assert (failed.status, failed.error.code) == ("failed", "server_error")
    provider.batches.pace(None)
    expired, cancelled = begin(), begin()
    provider.batches.end(expired, "expired")
    assert client.responses.retrieve(expired).status == "failed"
    assert client.responses.cancel(cancelled).status == "cancelled"
    assert client.responses.retrieve(cancelled).status == "cancelled"
    provider.enqueue(Script(status=503))
    with pytest.raises(openai.InternalServerError):
        begin()
    with pytest.raises(openai.BadRequestError, match="completion window"):
        client.responses.create(model="gpt-4o", input="hi", background_options={"completion_window": "8h"})


def test_a_batch_with_a_pace_is_answered_evenly_over_its_time(provider: SimulatedProvider, client: Any) -> None:
    provider.batches.pace(0.4)
    batch = create(client, [chat_row(number) for number in range(20)])

    records = provider.wait_until(lambda records: sum(record.batch_id == batch.id for record in records) == 20)

    times = [record.arrived_at for record in records if record.batch_id == batch.id]
    assert times[-1] - times[0] >= 0.2
    assert client.batches.retrieve(batch.id).status == "completed"
