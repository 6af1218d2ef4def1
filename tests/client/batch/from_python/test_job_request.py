"""What the journal of a job from Python keeps of the arguments."""

from __future__ import annotations

from typing import Any

from headrace.batch.from_python.job_request import job_request


def look_up(city: str) -> str:
    """Look up a city."""
    return city


def test_no_value_that_may_have_a_token_in_it_goes_into_the_journal() -> None:
    def shape(token: str) -> dict[str, str]:
        arguments: dict[str, Any] = {
            "model": "gpt-4o",
            "temperature": 0.5,
            "tools": [{"type": "mcp", "authorization": token}, look_up],
            "custom_options": {"headers": {"token": token}},
            "provider_api_key": token,
        }
        return job_request(arguments, None, {}).shape

    first, second = shape("sk-1"), shape("sk-2")
    assert first["model"] == "gpt-4o"
    assert first["temperature"] == "0.5"
    assert "sk-1" not in str(first)
    assert first == shape("sk-1")
    assert {name for name in first if first[name] != second[name]} == {"tools", "custom_options"}
