"""What is promised of a run that falls silent: its worker is asked, and is lost only if it does not answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.runs.silence import QUERY_AFTER, QUERY_TIMEOUT, Silence


def test_a_worker_is_asked_after_a_silence_and_is_lost_without_an_answer() -> None:
    silence = Silence()
    assert silence.check(0, 100.0) is None
    assert silence.check(0, 100.0 + QUERY_AFTER - 0.1) is None
    asked_at = 100.0 + QUERY_AFTER
    assert silence.check(0, asked_at) == "ask"

    assert silence.check(0, asked_at + QUERY_TIMEOUT - 0.1) is None
    assert silence.check(0, asked_at + QUERY_TIMEOUT) == "lost"


def test_an_answer_begins_another_silence() -> None:
    silence = Silence()
    silence.check(0, 0.0)
    silence.check(0, QUERY_AFTER)
    silence.answered()

    assert silence.check(0, QUERY_AFTER + QUERY_TIMEOUT) is None
    assert silence.check(0, 2 * QUERY_AFTER) == "ask"


@given(st.lists(st.floats(0.0, 5.0), max_size=80))
def test_a_run_whose_events_keep_coming_is_never_asked_for(pauses: list[float]) -> None:
    silence, now = Silence(), 0.0
    for count, pause in enumerate(pauses):
        now += pause
        assert silence.check(count, now) is None


@given(st.lists(st.floats(0.1, QUERY_TIMEOUT - 0.1), max_size=80))
def test_a_worker_that_always_answers_before_the_next_check_is_never_lost(pauses: list[float]) -> None:
    silence, now = Silence(), 0.0
    for pause in pauses:
        now += pause
        step = silence.check(0, now)
        assert step != "lost"
        if step == "ask":
            silence.answered()
