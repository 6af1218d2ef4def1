"""What is promised of arguments.

Each wrong one is named before anything is sent, each form of the specification is taken.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.arguments.checked_request import build_options, build_request, check_names
from headrace.arguments.run_arguments import RunArguments
from headrace.errors import InvalidRequestError
from headrace.types import FilePart, ImagePart, Message, Part, TextPart, Tool, ToolCallPart
from headrace.wire.codec import decode_request, encode_request
from headrace.wire.run_request import RunRequest
from tests.cases import each

TRACE = "tr_0123456789abcdef"
HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"name": "f", "description": "does f", "parameters": {"type": "object"}}


def build(*, stream: Any = False, takes_any_provider: bool = False, **changes: Any) -> RunRequest:
    """Check all arguments as the client does."""
    arguments = cast("RunArguments", {"model": "gpt-4o", "messages": HELLO} | changes)
    check_names(arguments, RunArguments)
    build_options(arguments)
    return build_request(
        arguments,
        stream=stream,
        trace_id=TRACE,
        providers=["openai", "groq"],
        takes_any_provider=takes_any_provider,
    )


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **more}]}


def assistant(tool_calls: Any, content: Any = None) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "content": content, "tool_calls": tool_calls}]}


def nested(arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model": ""}),
    ("model", {"model": None}),
    ("model", {"model": 4}),
    ("model", {"model": "llama-3"}),
    ("model", {"model": "openai/"}),
    ("model", {"model": "elsewhere/gpt-4o"}),
    ("provider", {"provider": "nobody"}),
    ("provider", {"provider": 4}),
    ("provider", {"provider": ""}),
    ("stream", {"stream": "yes"}),
    ("stream", {"stream": 1}),
    ("messages", {"messages": []}),
    ("messages", {"messages": None}),
    ("messages", {"messages": ""}),
    ("messages", {"messages": HELLO[0]}),
    ("messages", {"messages": Message("user", "Hello")}),
    ("messages", {"messages": b"Hello"}),
    ("messages", {"messages": HELLO[0]}),
    ("messages", {"messages": iter(HELLO)}),
    ("messages[0]", {"messages": ["Hello"]}),
    ("messages[1]", {"messages": [*HELLO, None]}),
    ("messages[0].contnet", {"messages": [{"role": "user", "content": "x", "contnet": "red"}]}),
    ("messages[0].role", {"messages": [{"content": "x"}]}),
    ("messages[0].role", {"messages": [{"role": "robot", "content": "x"}]}),
    ("messages[0].role", {"messages": [{"role": ["user"], "content": "x"}]}),
    ("messages[0].content", {"messages": [{"role": "user"}]}),
    ("messages[0].content", user(None)),
    ("messages[0].content", user(5)),
    ("messages[0].content", user(b"x")),
    ("messages[0].content", user({"type": "text", "text": "x"})),
    ("messages[0].content[0]", user([5])),
    ("messages[0].content[1]", user([{"type": "text", "text": "x"}, {"type": "video"}])),
    ("messages[0].content[0]", user([{"type": "text"}])),
    ("messages[0].content[0].text", user([{"type": "text", "text": 5}])),
    ("messages[0].content[0]", user([{"type": "image"}])),
    ("messages[0].content[0]", user([{"type": "image", "data": "AA=="}])),
    ("messages[0].content[0].image_url.url", user([{"type": "image_url", "image_url": {"url": 5}}])),
    ("messages[0].content[0].arguments", user([{"type": "tool_call", "id": "c1", "name": "f", "arguments": "{}"}])),
    ("messages[0].tool_call_id", {"messages": [{"role": "tool", "content": "x"}]}),
    ("messages[0].tool_call_id", {"messages": [{"role": "tool", "content": "x", "tool_call_id": 5}]}),
    ("messages[0].tool_name", {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c", "tool_name": 5}]}),
    ("messages[0].tool_calls[0]", assistant([{}])),
    ("messages[0].tool_calls", assistant("abc")),
    ("messages[0].tool_calls[0].function.arguments", assistant([nested({"a": 1})])),
    ("messages[0].tool_calls[0].function.arguments", assistant([nested("[]")])),
    ("messages[0].tool_calls[1].function.arguments", assistant([nested("{}"), nested("{")])),
    ("tools", {"tools": TOOL}),
    ("tools", {"tools": "f"}),
    ("tools", {"tools": 5}),
    ("tools[0]", {"tools": ["f"]}),
    ("tools[0]", {"tools": [{}]}),
    ("tools[1].name", {"tools": [TOOL, {"name": 5}]}),
    ("tools[0].parameters", {"tools": [{"name": "f", "parameters": "object"}]}),
    ("tools[0].name", {"tools": [{"name": ""}]}),
    ("tool_choice", {"tool_choice": "auto"}),
    ("tool_choice", {"tools": [], "tool_choice": "auto"}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": "f"}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": {"tool": "g"}}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": {"tool": ["f"]}}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": {"name": "f"}}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": 5}),
    ("response_format", {"response_format": "json"}),
    ("response_format", {"response_format": {1: 2}}),
    ("temperature", {"temperature": -0.1}),
    ("temperature", {"temperature": 2.1}),
    ("temperature", {"temperature": "1"}),
    ("temperature", {"temperature": True}),
    ("temperature", {"temperature": float("nan")}),
    ("top_p", {"top_p": 1.1}),
    ("max_output_tokens", {"max_output_tokens": 0}),
    ("max_output_tokens", {"max_output_tokens": -1}),
    ("max_output_tokens", {"max_output_tokens": 1.5}),
    ("max_output_tokens", {"max_output_tokens": True}),
    ("stop_sequences", {"stop_sequences": "END"}),
    ("stop_sequences[1]", {"stop_sequences": ["END", 5]}),
    ("stop_sequences", {"stop_sequences": {"END"}}),
    ("reasoning_effort", {"reasoning_effort": 5}),
    ("seed", {"seed": 1.5}),
    ("seed", {"seed": True}),
    ("seed", {"seed": 2**63}),
    ("top_k", {"top_k": 0}),
    ("frequency_penalty", {"frequency_penalty": 2.1}),
    ("presence_penalty", {"presence_penalty": "1"}),
    ("logprobs", {"logprobs": 5}),
    ("logprobs", {"logprobs": "yes"}),
    ("top_logprobs", {"top_logprobs": 21}),
    ("top_logprobs", {"top_logprobs": -1}),
    ("top_logprobs", {"top_logprobs": True}),
    ("top_logprobs", {"top_logprobs": 2, "logprobs": False}),
    ("parallel_tool_calls", {"parallel_tool_calls": False}),
    ("parallel_tool_calls", {"parallel_tool_calls": 0, "tools": [TOOL]}),
    ("verbosity", {"verbosity": "short"}),
    ("service_tier", {"service_tier": ""}),
    ("service_tier", {"service_tier": 1}),
    ("metadata", {"metadata": "x"}),
    ("metadata", {"metadata": {5: "x"}}),
    ("metadata", {"metadata": {str(number): "x" for number in range(17)}}),
    ("metadata.a", {"metadata": {"a": 5}}),
    ("metadata.a", {"metadata": {"a": "x" * 513}}),
    ("metadata['']", {"metadata": {"": "x"}}),
    ("timeout_ms", {"timeout_ms": 0}),
    ("timeout_ms", {"timeout_ms": 1.5}),
    ("timeout_ms", {"timeout_ms": "1000"}),
    ("first_chunk_timeout_ms", {"first_chunk_timeout_ms": -5}),
    ("idle_timeout_ms", {"idle_timeout_ms": False}),
    ("variables", {"variables": "x"}),
    ("variables.a", {"variables": {"a": 5}}),
    ("variables", {"variables": {5: "a"}}),
    ("variables", {"variables": {}, **user("Hi {{name}}")}),
    ("provider_api_key", {"provider_api_key": ""}),
    ("provider_api_key", {"provider_api_key": 5}),
    ("provider_api_key", {"provider_api_key": "sk-a\r\nx: y"}),
    ("provider_api_key", {"provider_api_key": "sk-é"}),
    ("custom_options", {"custom_options": []}),
    ("custom_options", {"custom_options": {1: 2}}),
    ("tags", {"tags": "a"}),
    ("tags[0]", {"tags": [1]}),
    ("user_id", {"user_id": 5}),
    ("session_id", {"session_id": 5}),
    ("send_trace", {"send_trace": None}),
    ("span_id", {"span_id": ""}),
    ("span_id", {"span_id": "sp_1"}),
    ("span_id", {"span_id": "sp_0123456789ABCDEF"}),
    ("span_id", {"span_id": "sp_0123456789abcdef\n"}),
    ("span_id", {"span_id": 5}),
    ("trace_id", {"trace_id": "sp_0123456789abcdef"}),
    ("parent_span_id", {"parent_span_id": "tr_0123456789abcdef"}),
    ("priority", {"priority": "urgent"}),
    ("priority", {"priority": None}),
    ("on_abort", {"on_abort": ["close"]}),
    ("temprature", {"temprature": 1}),
    ("messages[0].tool_calls", assistant(5)),
    ("messages[0].tool_calls[0].function.arguments", assistant([nested('"\ud800"')])),
    ("messages[0].content[0]", user([{"type": "image_url"}])),
    ("messages[0].content[0]", user([{"type": "image_url", "image_url": {"url": ""}}])),
    ("messages[0].content[0]", user([ImagePart()])),
    ("messages[0].role", {"messages": [Message(cast("Any", "robot"), "x")]}),
    ("messages[0].content", {"messages": [Message("user", cast("Any", 5))]}),
    ("messages[0].tool_call_id", {"messages": [Message("tool", "x")]}),
    ("tools[0].name", {"tools": [Tool("")]}),
    ("timeout_ms", {"timeout_ms": 10**400}),
    ("trace_id", {"trace_id": ""}),
]


@each(("argument", "changes"), WRONG)
def test_a_wrong_argument_is_named(argument: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(**changes)

    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")


MEANT: list[tuple[dict[str, Any], str]] = [
    ({"response_format": Message}, "takes a dict; give a type as response_type"),
    ({"response_format": list[str]}, "takes a dict; give a type as response_type"),
    ({"tools": print}, "takes a list of tools; put the tool into a list"),
    ({"tools": TOOL}, "takes a list of tools; put the tool into a list"),
    ({"tools": [{"description": "d"}]}, "the tool has no name: give one as 'name'"),
    ({"tools": [TOOL], "tool_choice": "any"}, "did you mean 'required'?"),
    ({"tools": [TOOL], "tool_choice": {"type": "any"}}, "did you mean 'required'?"),
    ({"tools": [TOOL], "tool_choice": {"mode": "AUTO"}}, "did you mean 'auto'?"),
    ({"tools": [TOOL], "tool_choice": "f"}, "did you mean {'tool': 'f'}?"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}}, "did you mean {'tool': 'f'}?"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "did you mean {'tool': 'f'}?"),
    ({"tools": [TOOL], "tool_choice": "g"}, "takes 'auto', 'none', 'required' or {'tool': name}, not 'g'"),
]


@each(("changes", "words"), MEANT)
def test_a_form_of_another_library_says_what_was_meant(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(**changes)

    assert words in caught.value.reason


@pytest.mark.parametrize("name", ["model", "messages"])
def test_an_argument_that_must_be_there_is_named(name: str) -> None:
    arguments = {"model": "gpt-4o", "messages": HELLO}
    del arguments[name]

    with pytest.raises(InvalidRequestError) as caught:
        check_names(arguments, RunArguments)
    assert caught.value.argument == name


# Accepted values.


def test_a_plain_request_says_nothing_that_was_not_asked_for() -> None:
    assert build(stream=True) == RunRequest(
        provider="openai", model="gpt-4o", messages=[Message("user", "Hello")], stream=True, trace_id=TRACE
    )


def test_every_argument_arrives_at_the_worker() -> None:
    request = build(
        stream=True,
        tools=[TOOL],
        tool_choice={"tool": "f"},
        response_format={"type": "object"},
        temperature=0,
        max_output_tokens=10,
        top_p=0.5,
        stop_sequences=("END",),
        reasoning_effort="high",
        seed=-7,
        parallel_tool_calls=False,
        frequency_penalty=-2,
        presence_penalty=0.5,
        top_k=40,
        top_logprobs=3,
        metadata=MappingProxyType({"team": "a"}),
        service_tier="flex",
        verbosity="low",
        timeout_ms=1500,
        first_chunk_timeout_ms=20,
        idle_timeout_ms=30,
        custom_options={"seed": 7},
        tags=["a"],
        user_id="u",
        session_id="s",
        send_trace=False,
        trace_id="tr_00000000000000ff",
        parent_span_id="sp_00000000000000ff",
    )

    assert decode_request(encode_request(request)) == RunRequest(
        provider="openai",
        model="gpt-4o",
        messages=[Message("user", "Hello")],
        stream=True,
        tools=[Tool("f", "does f", {"type": "object"})],
        tool_choice={"tool": "f"},
        response_format={"type": "object"},
        temperature=0.0,
        max_output_tokens=10,
        top_p=0.5,
        stop_sequences=["END"],
        reasoning_effort="high",
        seed=-7,
        parallel_tool_calls=False,
        frequency_penalty=-2,
        presence_penalty=0.5,
        top_k=40,
        logprobs=True,
        top_logprobs=3,
        metadata={"team": "a"},
        service_tier="flex",
        verbosity="low",
        custom_options={"seed": 7},
        total_timeout=1.5,
        first_chunk_timeout=0.02,
        idle_timeout=0.03,
        tags=["a"],
        user_id="u",
        session_id="s",
        trace_id="tr_00000000000000ff",
        parent_span_id="sp_00000000000000ff",
        send_trace=False,
    )


def test_a_str_is_one_message_of_the_user() -> None:
    request = build(messages="Hello {{name}}", variables={"name": "Ada"})

    assert request.messages == [Message("user", "Hello Ada")]


@each(
    "message",
    [
        {"content": None, "tool_calls": [nested("{}")]},
        {"content": "", "tool_calls": [nested("{}")]},
        {"content": [], "tool_calls": [nested("{}")]},
        {"tool_calls": [nested("{}")]},
        {"content": None, "tool_calls": [nested("{}")], "refusal": None, "function_call": None, "audio": None},
    ],
)
def test_an_answer_with_nothing_but_tool_calls_needs_no_content(message: dict[str, Any]) -> None:
    request = build(messages=[{"role": "assistant", **message}])

    assert request.messages == [Message("assistant", [ToolCallPart("c1", "f", {})])]


@each(
    "message",
    [
        {"content": None},
        {"content": ""},
        {"content": []},
        {},
        {"content": None, "tool_calls": None},
        {"content": None, "tool_calls": [], "refusal": None},
        {"tool_calls": None},
    ],
)
def test_an_answer_may_be_empty(message: dict[str, Any]) -> None:
    request = build(messages=[{"role": "assistant", **message}])

    assert request.messages == [Message("assistant", "")]


def test_options_stay_with_the_client() -> None:
    options = build_options(
        {
            "model": "gpt-4o",
            "messages": HELLO,
            "span_id": "sp_0123456789abcdef",
            "provider_api_key": "sk-1",
            "priority": "batch",
            "on_abort": "drain",
        }
    )

    assert (options.span_id, options.provider_api_key) == ("sp_0123456789abcdef", "sk-1")
    assert (options.priority, options.on_abort) == ("batch", "drain")


@pytest.mark.parametrize(
    "tool",
    [
        TOOL,
        Tool("f", "does f", {"type": "object"}),
        {"type": "function", "function": TOOL},
        MappingProxyType(TOOL),
    ],
    ids=["specification", "Tool", "openai", "mapping"],
)
def test_a_tool_is_taken_in_each_of_its_forms(tool: Any) -> None:
    assert build(tools=[tool]).tools == [Tool("f", "does f", {"type": "object"})]


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_tool_choice_is_one_of_three_words(choice: str) -> None:
    assert build(tools=[TOOL], tool_choice=choice).tool_choice == choice


def test_a_message_of_a_result_goes_back_as_it_is() -> None:
    message = Message("assistant", [TextPart("Hello", {"signature": "xyz"}), ToolCallPart("c1", "f", {"a": 1})])
    answer = {"role": "tool", "content": "42", "tool_call_id": "c1", "tool_name": "f"}

    request = build(messages=[*HELLO, message, answer])

    assert request.messages[1:] == [message, Message("tool", "42", "c1", "f")]


def test_openai_s_own_form_of_tool_calls_is_taken() -> None:
    request = build(messages=[{"role": "assistant", "content": "So:", "tool_calls": [nested('{"a": 1}'), nested("")]}])

    assert request.messages[0].content == [
        TextPart("So:"),
        ToolCallPart("c1", "f", {"a": 1}),
        ToolCallPart("c1", "f", {}),
    ]


@pytest.mark.parametrize("content", [None, ""])
def test_a_message_may_hold_tool_calls_alone(content: str | None) -> None:
    request = build(**assistant([nested("{}")], content))

    assert request.messages[0].content == [ToolCallPart("c1", "f", {})]


@pytest.mark.parametrize("url", [{"url": "https://x/y.png"}, "https://x/y.png"])
def test_openai_s_own_form_of_an_image_is_taken(url: Any) -> None:
    request = build(**user([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": url}]))

    assert request.messages[0].content == [TextPart("What is this?"), ImagePart("https://x/y.png")]


def test_an_image_is_taken_by_its_data() -> None:
    request = build(**user([{"type": "image", "data": "AA==", "media_type": "image/png"}]))

    assert request.messages[0].content == [ImagePart(data="AA==", media_type="image/png")]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_each_role_is_taken(role: str) -> None:
    assert build(messages=[{"role": role, "content": "x"}]).messages[0].role == role


# Variables.


def test_variables_fill_text_and_text_parts() -> None:
    messages = [
        {"role": "system", "content": "Speak {{ language }}."},
        {"role": "user", "content": [{"type": "text", "text": "{{name}}, {{name}}!"}]},
    ]

    filled = build(messages=messages, variables={"language": "Latin", "name": "Marce", "spare": "x"}).messages

    assert [message.text for message in filled] == ["Speak Latin.", "Marce, Marce!"]


def test_braces_stay_when_no_variables_are_given() -> None:
    assert build(**user("{{name}}")).messages[0].content == "{{name}}"


def test_a_value_is_not_filled_in_turn() -> None:
    assert build(**user("{{a}}"), variables={"a": "{{b}}"}).messages[0].content == "{{b}}"


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(InvalidRequestError, match=r"\{\{city\}\}"):
        build(**user("Weather in {{city}}?"), variables={"town": "Paris"})


@settings(deadline=None)
@given(values=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True), st.text(max_size=10)))
def test_whatever_a_variable_holds_arrives_as_it_is(values: dict[str, str]) -> None:
    text = "|".join(f"{{{{{name}}}}}" for name in values) or "-"

    assert build(**user(text), variables=values).messages[0].content == ("|".join(values.values()) if values else "-")


# Providers.


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini", "chatgpt-4o-latest", "o1", "o3-mini", "o4-mini"])
def test_the_name_of_a_model_tells_its_provider(model: str) -> None:
    request = build(model=model)

    assert (request.provider, request.model) == ("openai", model)


def test_a_provider_before_a_slash_is_the_provider() -> None:
    request = build(model="groq/openai/gpt-oss-20b")

    assert (request.provider, request.model) == ("groq", "openai/gpt-oss-20b")


def test_an_explicit_provider_takes_any_name_as_it_is() -> None:
    request = build(model="openai/gpt-oss-20b", provider="groq")

    assert (request.provider, request.model) == ("groq", "openai/gpt-oss-20b")


def test_an_engine_elsewhere_may_know_a_provider_that_is_not_configured_here() -> None:
    assert build(provider="theirs", takes_any_provider=True).provider == "theirs"


def test_an_unknown_model_says_which_prefixes_and_providers_there_are() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(model="llama-3")

    for word in ("'llama-3'", "gpt-", "o1", "groq", "openai", "give the provider"):
        assert word in str(caught.value)
    with pytest.raises(
        InvalidRequestError, match="'bedrock/llama-3'; there is no provider 'bedrock': write 'provider/model'"
    ):
        build(model="bedrock/llama-3")


def test_an_unknown_provider_says_which_there_are() -> None:
    with pytest.raises(InvalidRequestError, match=r"'nobody'.*groq, openai"):
        build(provider="nobody")


# Keys.


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret-é", ["sk-secret"], b"sk-secret"])
def test_no_error_shows_the_key_that_was_wrong(key: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(provider_api_key=key)

    assert "secret" not in f"{caught.value} {caught.value!r} {caught.value.args}"


def test_options_do_not_show_the_key() -> None:
    options = build_options({"model": "gpt-4o", "messages": HELLO, "provider_api_key": "sk-secret"})

    assert "secret" not in f"{options} {options!r}"


def test_variables_are_not_filled_in_files() -> None:
    parts: list[Part] = [TextPart("Hello {{name}}"), FilePart("a.txt", text="Hello {{name}}")]

    request = build(messages=[Message("user", parts)], variables={"name": "Ada"})

    assert request.messages[0].content == [
        TextPart("Hello Ada"),
        FilePart("a.txt", "text/plain", text="Hello {{name}}"),
    ]
