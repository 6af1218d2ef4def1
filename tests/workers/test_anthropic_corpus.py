"""Recorded Messages responses give what the official SDK makes of them, however the network split them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers import corpus

from headrace_workers.providers.anthropic import API

pytestmark = corpus.needs_recordings


def usage(said: dict[str, Any]) -> tuple[int, ...]:
    count = {name: value or 0 for name, value in said.items()}
    # The SDK's input is what the cache had no part in; headrace's is all of it.
    total_input = count["input"] + count["cached"] + count["cache_write"]
    totals = (total_input, count["output"], total_input + count["output"])
    return (*totals, count["cached"], count["cache_write"], count["reasoning"])


def is_cut(case: corpus.Case) -> bool:
    return b'"message_stop"' not in case.body and not case.expected["finish_reason"]


READING = corpus.Reading(api=API, usage=usage, is_cut=is_cut)


@pytest.mark.parametrize("name", corpus.case_names("anthropic.messages"))
def test_a_recorded_response_gives_what_the_official_sdk_makes_of_it(name: str) -> None:
    corpus.check(READING, name)
