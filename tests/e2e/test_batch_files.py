"""A file for OpenAI's Batch API runs unchanged on all providers, and a program for that API's output reads the records."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from headrace import Client, HeadraceError
from headrace.batch.records.record_lines import failure_line, success_line
from headrace.batch.row import BadRow, FinishedRow, Row
from headrace.batch.rows.row_options import RowOptions, RowProvider
from headrace.batch.rows.row_source import RowSource
from headrace.settings.provider_table import BUILT_IN
from headrace.testing import SimulatedProvider
from tests.conftest import simulate
from tests.waiting import busyness

PROVIDERS = {name: RowProvider(url, api) for name, (api, url, _) in BUILT_IN.items()}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
HELLO = [{"role": "user", "content": "Hello"}]


def batch_line(custom_id: str, url: str, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}) + "\n"


def read_as_for_openai(output: Path) -> dict[str, str]:
    """Read an output file as a program does that was written for OpenAI's Batch API. Return the answers."""
    answers: dict[str, str] = {}
    for line in output.read_text().splitlines():
        record = json.loads(line)
        custom_id, response, error = record["custom_id"], record["response"], record["error"]
        if error is not None or response["status_code"] != 200:
            answers[custom_id] = f"failed: {(response or {}).get('status_code')} {error['code']}"
            continue
        body = response["body"]
        match body["object"]:
            case "chat.completion":
                (choice,) = ChatCompletion.model_validate(body).choices
                calls = "".join(
                    call.function.name for call in choice.message.tool_calls or () if call.type == "function"
                )
                answers[custom_id] = f"{choice.finish_reason}: {choice.message.content or calls}"
            case "response":
                answers[custom_id] = Response.model_validate(body).output_text
            case "list":
                vectors = CreateEmbeddingResponse.model_validate(body).data
                answers[custom_id] = f"{len(vectors)} vectors"
    return answers


def run_all(client: Client, rows: Iterable[Row | BadRow], output: Path) -> None:
    """Run rows, and write their records."""
    running = client._row_runs({"priority": "batch", "max_retries": 0})
    found = list(rows)
    records = [failure_line(row) for row in found if isinstance(row, BadRow)]
    started = [row for row in found if isinstance(row, Row)]
    running.start(started)
    ended: list[FinishedRow] = []
    while len(ended) < len(started):
        taken = running.take(10 * busyness())
        assert taken
        ended += taken
    for row in ended:
        is_failure = isinstance(row.result, HeadraceError)
        records.append(failure_line(row.row, row.result) if is_failure else success_line(row, time.time()))  # type: ignore[arg-type]
    output.write_bytes(b"".join(records))


def test_a_file_for_openai_s_batch_api_runs_unchanged_and_its_output_is_read_as_theirs(
    client: Client, provider: SimulatedProvider, tmp_path: Path
) -> None:
    chat, responses = "/v1/chat/completions", "/v1/responses"
    (tmp_path / "in.jsonl").write_text(
        batch_line("r1", chat, model="gpt-4o", messages=HELLO, max_tokens=50, **simulate(text="one"))
        + batch_line("r2", responses, model="gpt-4o", input="Hello", instructions="Be brief", **simulate(text="two"))
        + batch_line("r3", "/v1/embeddings", model="text-embedding-3-small", input=["a", "b"])
        + batch_line("r4", chat, model="claude-sonnet-5", messages=HELLO, **simulate(text="four"))
        + batch_line("r5", responses, model="gemini-2.5-flash", input="Hello", **simulate(text="five"))
        + batch_line("r6", chat, model="gpt-4o", messages=HELLO, tools=[TOOL], tool_choice="required")
        + batch_line("r7", chat, model="gpt-4o", messages=HELLO, temperature=9)
        + batch_line("r8", chat, model="gpt-4o", messages=HELLO, **simulate(status=404))
        + batch_line("r9", "/v1/completions", model="gpt-4o", prompt="Hello")
        + '{"custom_id": "r10", "method"'
    )
    run_all(client, RowSource(tmp_path / "in.jsonl", RowOptions(providers=PROVIDERS)), tmp_path / "out.jsonl")

    assert read_as_for_openai(tmp_path / "out.jsonl") == {
        "r1": "stop: one",
        "r2": "two",
        "r3": "2 vectors",
        "r4": "stop: four",
        "r5": "five",
        "r6": "tool_calls: get_weather",
        "r7": "failed: None invalid_request",
        "r8": "failed: 404 invalid_request",
        "r9": "failed: None bad_row",
        "line-10": "failed: None bad_row",
    }
    paths = sorted(request.path.partition("?")[0].partition(":")[0] for request in provider.requests())
    assert paths == [
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/responses",
        "/v1beta/models/gemini-2.5-flash",
    ]
