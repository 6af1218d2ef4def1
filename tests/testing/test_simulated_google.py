"""The simulated Gemini API.

The official client and the worker read its answers, and it is as strict as the real API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from headrace.testing import Script, ScriptedToolCall, SimulatedProvider
from headrace.testing.google.rules import refusal_of, signature_of
from headrace.types import Message, ReasoningPart, RunEvent, TextPart, Tool, ToolCallPart
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.google.api import API
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderSettings
from tests.cases import each
from tests.testing.sdks import Sdk

genai = Sdk("google.genai")
errors = Sdk("google.genai.errors")

MODEL = "gemini-3-pro"
WEATHER = {
    "name": "get_weather",
    "parametersJsonSchema": {"type": "object", "properties": {"location": {"type": "string"}}},
}
TOOL = Tool("get_weather", parameters=WEATHER["parametersJsonSchema"])  # type: ignore[arg-type]
HI = {"role": "user", "parts": [{"text": "hi"}]}


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


@pytest.fixture
def provider(shared: SimulatedProvider) -> SimulatedProvider:
    shared.clear()
    return shared


@pytest.fixture
def client(provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    client = genai.Client()
    yield client.models
    client.close()


def stream(models: Any, contents: Any = "hi", **config: Any) -> list[Any]:
    return list(models.generate_content_stream(model=MODEL, contents=contents, config=config or None))


def text_of(chunks: list[Any]) -> str:
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    return "".join(part.text for part in parts if part.text and not part.thought)


def send(provider: SimulatedProvider, method: str = "streamGenerateContent?alt=sse", **body: Any) -> httpx.Response:
    url = f"http://127.0.0.1:{provider.port}/v1beta/models/{MODEL}:{method}"
    return httpx.post(url, headers={"x-goog-api-key": "sk-1"}, json={"contents": [HI]} | body)


# With the official client.


def test_a_scripted_text_is_streamed_in_words_with_running_usage(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="Hello big  world.\nBye ", reasoning="Let me"))

    chunks = stream(client)

    assert text_of(chunks) == "Hello big  world.\nBye "
    totals = [chunk.usage_metadata.total_token_count for chunk in chunks]
    assert totals[:-1] == list(range(totals[0], totals[0] + 7))
    assert chunks[-1].usage_metadata.thoughts_token_count == 2
    assert chunks[-1].usage_metadata.candidates_token_count == 5
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    assert chunks[-1].candidates[0].content.parts[0].thought_signature
    (record,) = provider.requests()
    assert (record.sent_text, record.chunks_sent, record.model) == ("Hello big  world.\nBye ", 7, MODEL)


def test_a_question_about_the_weather_takes_two_turns(client: Any) -> None:
    tools = [{"function_declarations": [WEATHER]}]
    first = client.generate_content(model=MODEL, contents="What is the weather?", config={"tools": tools})
    call = first.candidates[0].content.parts[0]
    assert (call.function_call.name, call.function_call.args) == ("get_weather", {"location": "Tokyo"})

    answer = genai.types.Part.from_function_response(name="get_weather", response={"result": "22 C"})
    contents = [genai.types.UserContent("What is the weather?"), first.candidates[0].content]
    contents.append(genai.types.UserContent([answer]))

    assert "22 C" in text_of(stream(client, contents, tools=tools))


def test_the_official_client_continues_an_answer_by_its_token(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(repeat=7, continue_after=3), Script(text="next"))

    chunks = stream(client)

    assert text_of(chunks) == "0 1 2 3 4 5 6 "
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    requests = provider.requests()
    assert [record.sent_text for record in requests] == ["0 1 2 ", "3 4 5 ", "6 "]
    assert len({record.body.get("continuationToken") for record in requests}) == 3
    assert text_of(stream(client)) == "next"


def test_an_error_inside_the_stream_raises(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(repeat=9, error_after=3, error_message="over { loaded"))

    with pytest.raises(errors.ServerError, match=r"over \{ loaded"):
        stream(client)

    assert provider.requests()[0].outcome == "failed"


@pytest.mark.parametrize(
    ("status", "word"), [(400, "INVALID_ARGUMENT"), (429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE")]
)
def test_scripted_errors_raise_what_the_real_api_raises(
    provider: SimulatedProvider, client: Any, status: int, word: str
) -> None:
    provider.enqueue(Script(status=status))

    with pytest.raises(errors.APIError) as caught:
        stream(client)

    assert (caught.value.code, caught.value.status) == (status, word)


def test_a_whole_answer_is_one_response(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="One piece.", reasoning="Let me see.", usage={"totalTokenCount": 3}))

    whole = client.generate_content(model=MODEL, contents="hi")

    thought, text, signed = whole.candidates[0].content.parts
    assert (thought.text, thought.thought, text.text, bool(signed.thought_signature)) == (
        "Let me see.", True, "One piece.", True,
    )  # fmt: skip
    assert whole.usage_metadata.total_token_count == 3


# With the worker's wire format: both must agree on the data that is sent back.


def run(provider: SimulatedProvider, *messages: Message, **fields: Any) -> Completion:
    request = RunRequest(provider="google", model=MODEL, messages=list(messages), stream=True, **fields)
    settings = ProviderSettings(name="google", api="google", base_url=provider.environment["GOOGLE_GEMINI_BASE_URL"])
    mapper = API.open_stream(request)
    sent = API.build_request(request, settings, provider.api_key)
    exchange(sent, mapper)
    while mapper.continuation is not None:
        sent = API.continue_request(sent, mapper.continuation)
        exchange(sent, mapper)
    return mapper.finish()


def exchange(sent: HttpRequest, mapper: Any) -> list[RunEvent]:
    response = httpx.post(sent.url, headers=dict(sent.headers), content=sent.body)
    if response.status_code != 200:
        raise ProviderFailedError(API.read_error(response.status_code, dict(response.headers), response.content))
    parser, events = SSEParser(), list[RunEvent]()
    for name, data in parser.feed(response.content) + parser.finish():
        mapper.feed(name, data, events)
    return events


def test_parallel_calls_with_signatures_take_two_turns(provider: SimulatedProvider) -> None:
    calls = [ScriptedToolCall("get_weather", {"location": city}, id=city) for city in ("Tokyo", "Paris")]
    script = Script(reasoning="Which?", tool_calls=[*calls, ScriptedToolCall("get_weather")], text="Let me look.")
    provider.enqueue(script, Script(reasoning="Which?", text="Let me look."))
    asked = Message("user", "Weather?")

    first = run(provider, asked, tools=[TOOL])

    assert [call.name for call in first.tool_calls] == ["get_weather"] * 3
    assert (first.finish_reason, first.provider_finish_reason) == ("tool_calls", "STOP")
    assert first.message is not None
    results = [Message("tool", "20", tool_call_id=call.id) for call in reversed(first.tool_calls)]
    second = run(provider, asked, first.message, *results, tools=[TOOL])
    assert (second.finish_reason, second.tool_calls) == ("stop", [])


def altered(message: Message, provider_data: dict[str, Any] | None) -> Message:
    parts = [
        msgspec.structs.replace(part, provider_data=provider_data) if isinstance(part, ToolCallPart) else part
        for part in message.content
        if not isinstance(part, str)
    ]
    return Message("assistant", parts)


@pytest.mark.parametrize(
    ("provider_data", "words"),
    [
        ({"api": "google"}, "missing a thought_signature in functionCall parts"),
        ({"api": "google", "thoughtSignature": "c2ln"}, "Corrupted thought signature"),
        ({"api": "google", "thoughtSignature": "no base64"}, "Base64 decoding failed"),
    ],
)
def test_a_call_without_its_unaltered_signature_is_refused(
    provider: SimulatedProvider, provider_data: dict[str, Any], words: str
) -> None:
    provider.enqueue(Script(tool_calls=[ScriptedToolCall("get_weather", {"location": "Oslo"})]))
    first = run(provider, Message("user", "?"), tools=[TOOL])
    assert first.message is not None

    with pytest.raises(ProviderFailedError) as caught:
        run(
            provider,
            Message("user", "?"),
            altered(first.message, provider_data),
            Message("tool", "x", tool_call_id=first.tool_calls[0].id),
        )

    failure = caught.value.failure
    assert (failure.kind, failure.status_code, failure.code) == ("invalid_request", 400, "INVALID_ARGUMENT")
    assert words in failure.reason


def test_signatures_on_text_and_thoughts_are_sent_back_too(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(reasoning="Hm.", text="Yes."))

    first = run(provider, Message("user", "?"))

    assert first.message is not None
    assert isinstance(first.message.content, list)
    thought, text, signed = first.message.content
    assert (thought, text) == (ReasoningPart("Hm."), TextPart("Yes."))
    assert isinstance(signed, TextPart)
    assert run(provider, Message("user", "?"), first.message, Message("user", "!")).finish_reason == "stop"
    sent = provider.requests()[-1].body["contents"][1]["parts"]
    assert sent == [{"text": "Yes."}, {"text": "", "thoughtSignature": signature_of("text", "")}]


def test_a_continued_answer_is_one_answer_with_the_usage_of_all_its_requests(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(reasoning="a b", repeat=5, continue_after=3))

    whole = run(provider, Message("user", "?"))

    records = provider.requests()
    assert [record.sent_text for record in records] == ["0 ", "1 2 3 ", "4 "]
    assert (whole.finish_reason, whole.provider_finish_reason) == ("stop", "STOP")
    assert (whole.usage.output_tokens, whole.usage.reasoning_tokens) == (7, 2)
    assert whole.usage.total_tokens == whole.usage.input_tokens + 7
    assert whole.usage.input_tokens % len(records) == 0


def test_arguments_that_are_no_json_have_googles_own_finish_reason(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(tool_calls=[ScriptedToolCall("f", {"x": 1}), ScriptedToolCall("g", "{broken")]))

    whole = run(provider, Message("user", "?"))

    assert (whole.finish_reason, whole.provider_finish_reason) == ("error", "MALFORMED_FUNCTION_CALL")
    assert [call.name for call in whole.tool_calls] == ["f"]


def test_refusals_and_limits_have_their_finish_reasons(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(refusal="I will not."))

    assert run(provider, Message("user", "?")).finish_reason == "content_filter"
    shortened = run(provider, Message("user", "Write a story"), max_output_tokens=5)
    assert (shortened.finish_reason, shortened.usage.output_tokens) == ("max_tokens", 5)


# Exact bytes.


def test_a_stream_has_the_exact_bytes_of_the_real_api(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(chunks=['a"\n', "é"]))

    response = send(provider)

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, end = response.text.split("\r\n\r\n")
    assert end == ""
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [chunk["candidates"][0]["content"]["parts"] for chunk in chunks] == [
        [{"text": 'a"\n'}], [{"text": "é"}], [{"text": ""}],
    ]  # fmt: skip
    assert {(chunk["modelVersion"], chunk["responseId"]) for chunk in chunks} == {(MODEL, chunks[0]["responseId"])}
    assert "sk-1" not in str(provider.requests())


def test_an_error_in_a_stream_is_bare_json(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(repeat=1, error_after=1))

    _, error = send(provider).text.split("\r\n\r\n")

    assert error.startswith('{\r\n  "error": {\r\n')
    assert json.loads(error)["error"]["status"] == "UNAVAILABLE"


def test_a_stream_without_alt_sse_is_an_array(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(repeat=2))

    response = send(provider, "streamGenerateContent")

    assert response.headers["content-type"] == "application/json"
    assert [one["candidates"][0]["content"]["parts"][0]["text"] for one in response.json()] == ["0 ", "1 ", ""]


@pytest.mark.parametrize(
    ("path", "key", "content", "status", "word"),
    [
        ("v1beta/models/m:generateContent", None, b"{}", 403, "PERMISSION_DENIED"),
        ("v1beta/models/m:generateContent", "wrong", b"{}", 400, "INVALID_ARGUMENT"),
        ("v1/models/no-such-model:generateContent", "sk-1", b'{"contents":[]}', 404, "NOT_FOUND"),
        ("v1/models/m:generateContent", "sk-1", b"{", 400, "INVALID_ARGUMENT"),
        ("v1alpha/models/m:generateContent", "sk-1", b"[]", 400, "INVALID_ARGUMENT"),
        ("v1/models/m:generateContent", "sk-1", b'{"simulate":{"pase":1}}', 400, "INVALID_ARGUMENT"),
    ],
)
def test_a_wrong_request_gets_the_real_status(
    provider: SimulatedProvider, *, path: str, key: str | None, content: bytes, status: int, word: str
) -> None:
    headers = {} if key is None else {"x-goog-api-key": key}
    response = httpx.post(f"http://127.0.0.1:{provider.port}/{path}", headers=headers, content=content)

    assert response.status_code == status
    assert (response.json()["error"]["code"], response.json()["error"]["status"]) == (status, word)
    assert API.read_error(status, {}, response.content).kind == (
        "authentication" if key in {None, "wrong"} else "invalid_request"
    )


def test_unknown_methods_of_a_model_do_not_exist(provider: SimulatedProvider) -> None:
    assert send(provider, "countTokens").status_code == 404
    url = f"http://127.0.0.1:{provider.port}/v1/models/m:generateContent"
    assert httpx.get(url, headers={"x-goog-api-key": "sk-1"}).status_code == 405


CALL = {
    "functionCall": {"name": "f", "args": {"x": 1}, "id": "i"},
    "thoughtSignature": signature_of("f", {"x": 1}),
}
BARE = {"functionCall": {"name": "g"}}
F = {"functionResponse": {"name": "f", "response": {"x": 1}, "id": "i"}}
G = {"functionResponse": {"name": "g", "response": {}}}


def turns(*parts: list[Any]) -> dict[str, Any]:
    roles = ["user", "model"] * len(parts)
    return {"contents": [{"role": role, "parts": part} for role, part in zip(roles, parts, strict=False)]}


def with_function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"functionDeclarations": [{"name": "f"} | fields]}]}


def calling(**fields: Any) -> dict[str, Any]:
    return with_function() | {"toolConfig": {"functionCallingConfig": fields}}


def generation(**fields: Any) -> dict[str, Any]:
    return {"generationConfig": fields}


TEXT = [{"text": "x"}]

REFUSED: list[tuple[Any, str]] = [
    ({"contents": []}, "contents is not specified"),
    ({"model": "m"}, 'Unknown name "model": Cannot find field'),
    ({"contents": [{"role": "system", "parts": TEXT}]}, "valid role: user, model"),
    ({"contents": [HI, {"parts": TEXT}]}, "valid role: user, model"),
    ({"contents": [{"role": "user"}]}, "contents.parts must not be empty"),
    ({"contents": [{"role": "user", "content": "x"}]}, "Unknown name \"content\" at 'contents[0]'"),
    (turns([{"text": "x", "type": "text"}]), "Unknown name \"type\" at 'contents[0].parts[0]'"),
    (turns([{"thought": True}]), "required oneof field"),
    (turns([{"text": "x", "inlineData": {}}]), "oneof field 'data' is already set"),
    (turns([{"text": 3}]), "text"),
    (turns([{"inlineData": {"data": "?", "mimeType": "image/png"}}]), "base64"),
    (turns([{"fileData": {"mimeType": "image/png"}}]), "file_uri"),
    (turns(TEXT, [{"functionCall": {"name": "f", "arguments": {}}}]), "arguments"),
    (turns(TEXT, [{"functionCall": {"args": {}}}]), "Name cannot be empty"),
    (turns(TEXT, [CALL], [{"functionResponse": {"name": "f", "response": "x"}}]), "response"),
    (turns(TEXT, [CALL]), "number of function response parts"),
    (turns(TEXT, [CALL], TEXT), "number of function response parts"),
    (turns(TEXT, [CALL, BARE], [F]), "number of function response parts"),
    (turns(TEXT, [CALL], [G]), "names and ids"),
    (turns(TEXT, TEXT, [F]), "immediately after a function call turn"),
    (turns([CALL]), "comes from the model"),
    (turns(TEXT, [BARE], [G]), "missing a thought_signature"),
    (turns(TEXT, [BARE, CALL], [F, G]), "missing a thought_signature"),
    (turns(TEXT, [{"text": "y", "thoughtSignature": signature_of("text", "x")}]), "Corrupted thought signature"),
    ({"systemInstruction": "x"}, "an object is needed"),
    ({"tools": [{"type": "function"}]}, "Unknown name \"type\" at 'tools[0]'"),
    (with_function(strict=True), "strict"),
    (with_function(name="get weather"), "Invalid function name"),
    (with_function(parametersJsonSchema={"type": "string"}), "should be OBJECT"),
    (with_function(parameters={"type": "object"}, parametersJsonSchema={"type": "object"}), "only one of"),
    ({"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}}, "without function_declarations"),
    (calling(mode="auto"), "mode"),
    (calling(mode="AUTO", allowedFunctionNames=["f"]), "mode is ANY"),
    (calling(mode="ANY", allowedFunctionNames=["g"]), "not found in function declarations"),
    (generation(temperature=2.5), "range"),
    (generation(maxOutputTokens=1.5), "maxOutputTokens"),
    (generation(stopSequences=["a"] * 6), "at most 5"),
    (generation(responseMimeType="json"), "response_mime_type"),
    (generation(responseJsonSchema={}), "mime type is JSON"),
    (generation(thinkingConfig={"thinkingBudget": 1, "thinkingLevel": "LOW"}), "only one"),
    (generation(thinkingConfig={"thinkingLevel": "huge"}), "thinking_level"),
    (generation(max_tokens=1), "maxTokens"),
    ({"continuationToken": "?"}, "Base64"),
    ([], "an object is needed"),
    (generation(seed=2**31), "seed"),
    (generation(topK=1.5), "topK"),
    (generation(topK=0), "topK"),
    (generation(presencePenalty=3), "presencePenalty"),
    (generation(logprobs=3), "response_logprobs is not set"),
    (generation(responseLogprobs=1), "responseLogprobs"),
    (generation(responseLogprobs=True, logprobs=21), "logprobs"),
    ({"serviceTier": "cheap"}, "service_tier"),
    ({"labels": {"a": 5}}, "labels"),
    ({"labels": {"Team": "a"}}, "Invalid label 'Team'"),
    ({"labels": {"team": "a" * 64}}, "Invalid label 'team'"),
]


@each(("fields", "words"), REFUSED)
def test_a_request_that_the_real_api_refuses_is_refused(fields: Any, words: str) -> None:
    refusal = refusal_of({"contents": [HI]} | fields if isinstance(fields, dict) else fields)

    assert refusal is not None
    assert words in refusal.message
    assert refusal.word == "INVALID_ARGUMENT"


ACCEPTED: list[dict[str, Any]] = [
    {"contents": [{"parts": TEXT}]},
    {"system_instruction": {"role": "user", "parts": TEXT}, "safetySettings": [], "continuationToken": "dG9r"},
    turns([{"inline_data": {"data": "QQ==", "mime_type": "image/png"}}, {"fileData": {"fileUri": "https://x/y"}}]),
    turns(TEXT, [{"text": "x", "thought": True}, CALL, BARE], [G, F, {"text": "y"}]),
    calling(mode="ANY", allowedFunctionNames=["f"]),
    generation(thinking_config={"thinking_level": "low", "include_thoughts": True}, topK=3),
    generation(responseMimeType="application/json", responseJsonSchema={"type": "object"}, stopSequences=["x"]),
]


@pytest.mark.parametrize("fields", ACCEPTED)
def test_a_request_that_the_real_api_accepts_is_accepted(fields: dict[str, Any]) -> None:
    refusal = refusal_of({"contents": [HI]} | fields)
    assert refusal is None, refusal
