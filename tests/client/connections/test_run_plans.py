"""What is promised of the plan of a run: retries, fallbacks with keys of their own, and what the limits are told."""

from __future__ import annotations

from typing import Any, cast

import pytest

from headrace.arguments.checked_request import build_options, build_request
from headrace.arguments.run_arguments import RunArguments
from headrace.connections.run_plans import RunPlans
from headrace.errors import InvalidRequestError
from headrace.runs.run_plan import RunPlan
from headrace.settings.limit_settings import ModelConfig
from headrace.settings.settings import EngineConfig, Settings, with_built_in
from headrace.wire.accounts import account_of, short_hash
from headrace.wire.codec import decode_request
from tests.cases import each

SPAN = "sp_0123456789abcdef"
ENVIRON = {"OPENAI_API_KEY": "sk-openai", "ANTHROPIC_API_KEY": "sk-anthropic"}
OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com"


def plan(settings: Settings | None = None, *, is_embedded: bool = True, **changes: Any) -> RunPlan:
    arguments = cast("RunArguments", {"model": "gpt-4o", "messages": "Hello"} | changes)
    known = with_built_in(settings or Settings(), {})
    paths = {"messages[0]": "messages"}
    options = build_options(arguments)
    request = build_request(arguments, stream=True, trace_id="tr_1", providers=tuple(known.providers))
    return RunPlans({}, known, is_embedded=is_embedded).plan(SPAN, options, request, paths, ENVIRON)


def chain(first: RunPlan) -> list[RunPlan]:
    found = [first]
    while (following := found[-1].fallback) is not None:
        found.append(following)
    return found


def test_each_fallback_has_the_key_and_the_address_of_its_own_provider() -> None:
    plans = chain(plan(fallbacks=["claude-x", "gpt-4o-mini"], provider_api_key="sk-callers", max_retries=1))

    assert [(each.provider, each.model, each.api_key, each.base_url) for each in plans] == [
        ("openai", "gpt-4o", "sk-callers", OPENAI),
        ("anthropic", "claude-x", "sk-anthropic", ANTHROPIC),
        ("openai", "gpt-4o-mini", "sk-callers", OPENAI),
    ]
    assert [each.account for each in plans] == [account_of(each.api_key, each.base_url) for each in plans]
    assert {(each.span_id, each.max_retries, each.streams) for each in plans} == {(SPAN, 1, True)}


def test_each_fallback_gets_the_same_request_for_its_own_model() -> None:
    plans = chain(plan(fallbacks=["claude-x"], temperature=0.5, tags=["a"]))
    requests = [decode_request(each.request) for each in plans]

    assert [(request.provider, request.model) for request in requests] == [
        ("openai", "gpt-4o"),
        ("anthropic", "claude-x"),
    ]
    assert requests[0].messages == requests[1].messages
    assert {(request.temperature, *request.tags) for request in requests} == {(0.5, "a")}
    assert plans[1].original_paths == {"messages[0]": "messages", "model": "fallbacks[0]"}


def test_for_an_engine_at_an_address_its_own_keys_are_used() -> None:
    plans = chain(plan(fallbacks=["claude-x", "gpt-4o-mini"], provider_api_key="sk-callers", is_embedded=False))

    assert [(each.api_key, each.base_url) for each in plans] == [
        ("sk-callers", None),
        (None, None),
        ("sk-callers", None),
    ]
    assert plans[1].account == ""


def test_retries_and_fallbacks_come_from_the_call_then_from_the_model_then_from_the_engine() -> None:
    tables = {"openai/gpt-4o": ModelConfig(max_retries=7, fallbacks=["claude-x"])}
    settings = Settings(engine=EngineConfig(max_retries=4), models=tables)
    given = [plan(), plan(settings), plan(settings, max_retries=0, fallbacks=[]), plan(settings, model="gpt-5")]

    assert [each.max_retries for each in given] == [2, 7, 0, 4]
    assert [[other.model for other in chain(each)[1:]] for each in given] == [[], ["claude-x"], [], []]
    assert [each.max_retries for each in chain(plan(settings))] == [7, 4]
    assert [each.max_retries for each in chain(plan(settings, max_retries=1))] == [1, 1]


def test_the_limits_are_told_hashes_and_estimates_only() -> None:
    first = plan(user_id="ann", tags=["a", "b"], max_output_tokens=50)

    assert (first.user, first.tags) == (short_hash("ann"), [short_hash("a"), short_hash("b")])
    assert first.max_output_tokens == 50
    assert 0 < first.input_tokens < 100
    assert "sk-openai" not in first.account
    assert len(plan(tags=[str(number) for number in range(200)]).tags) == 64
    assert (plan().user, plan().tags, plan().max_output_tokens) == ("", [], 0)


@each(
    ("argument", "changes"),
    [
        ("fallbacks", {"fallbacks": "claude-x"}),
        ("fallbacks[0]", {"fallbacks": [4]}),
        ("fallbacks[1]", {"fallbacks": ["claude-x", "gpt-4o"]}),
        ("max_retries", {"max_retries": -1}),
        ("max_retries", {"max_retries": 101}),
        ("max_retries", {"max_retries": True}),
        ("hedge_after_ms", {"hedge_after_ms": 0}),
    ],
)
def test_a_wrong_argument_is_named(argument: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        plan(**changes)

    assert caught.value.argument == argument
