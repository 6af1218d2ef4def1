"""Each client that asks for new workers gets one answer, and the supervisor is asked one question at a time."""

from __future__ import annotations

from headrace.wire.messages import Restart
from headrace_engine.broker.restart_questions import RestartQuestions


def test_a_client_that_asks_is_answered_once() -> None:
    questions = RestartQuestions()

    assert questions.asked(b"a") == Restart(1)
    assert questions.open == Restart(1)
    assert questions.answered(1) == ([b"a"], None)
    assert questions.answered(1) == ([], None)
    assert questions.open is None


def test_a_client_that_asks_while_a_question_is_open_gets_the_answer_to_the_next() -> None:
    """The supervisor may have answered the first question before the client changed something and asked."""
    questions = RestartQuestions()
    questions.asked(b"a")

    assert [questions.asked(peer) for peer in (b"b", b"c", b"a")] == [None] * 3
    assert questions.answered(1) == ([b"a"], Restart(2))
    assert questions.answered(2) == ([b"b", b"c", b"a"], None)


def test_a_flood_of_questions_is_asked_as_two() -> None:
    questions = RestartQuestions()
    numbers = [questions.asked(b"%d" % (number % 100)) for number in range(100_000)]

    assert [number for number in numbers if number is not None] == [Restart(1)]
    told, following = questions.answered(1)
    assert (told, following) == ([b"0"], Restart(2))
    told, following = questions.answered(2)
    assert (len(told), following) == (100, None)


def test_a_client_that_has_gone_is_not_answered_and_its_question_stays_open() -> None:
    questions = RestartQuestions()
    questions.asked(b"a")
    questions.left(b"a")
    questions.left(b"never came")

    assert questions.asked(b"b") is None
    assert questions.answered(7) == ([], None)
    assert questions.answered(1) == ([], Restart(2))
    assert questions.answered(2) == ([b"b"], None)


def test_a_question_with_new_settings_and_one_without_are_asked_one_after_the_other() -> None:
    """A restart must not fail because of settings that nobody asked to read."""
    questions = RestartQuestions()
    questions.asked(b"a")
    assert questions.asked(b"b", reload=True) is None
    assert questions.asked(b"c") is None
    assert questions.asked(b"d", reload=True) is None

    assert questions.answered(1) == ([b"a"], Restart(2, reload=True))
    assert questions.answered(2) == ([b"b", b"d"], Restart(3))
    assert questions.answered(3) == ([b"c"], None)
