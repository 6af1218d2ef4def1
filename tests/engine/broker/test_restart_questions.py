"""The broker's account of who has asked for new workers."""

from __future__ import annotations

from headrace_engine.broker.restart_questions import RestartQuestions


def test_who_asks_is_told_once() -> None:
    questions = RestartQuestions()

    assert questions.asked(b"a") == 1
    assert questions.open == 1
    assert questions.answered(1) == ([b"a"], None)
    assert questions.answered(1) == ([], None)
    assert questions.open is None


def test_who_comes_while_the_supervisor_is_asked_is_meant_by_the_next_question() -> None:
    """What it has changed before it asked, the supervisor may not have known when it answered the first."""
    questions = RestartQuestions()
    questions.asked(b"a")

    assert [questions.asked(peer) for peer in (b"b", b"c", b"a")] == [None] * 3
    assert questions.answered(1) == ([b"a"], 2)
    assert questions.answered(2) == ([b"b", b"c", b"a"], None)


def test_a_flood_of_questions_is_two() -> None:
    questions = RestartQuestions()
    numbers = [questions.asked(b"%d" % (number % 100)) for number in range(100_000)]

    assert [number for number in numbers if number is not None] == [1]
    told, following = questions.answered(1)
    assert (told, following) == ([b"0"], 2)
    told, following = questions.answered(2)
    assert (len(told), following) == (100, None)


def test_who_has_gone_is_told_nothing_and_its_question_stays_the_only_one() -> None:
    questions = RestartQuestions()
    questions.asked(b"a")
    questions.left(b"a")
    questions.left(b"never came")

    assert questions.asked(b"b") is None
    assert questions.answered(7) == ([], None)
    assert questions.answered(1) == ([], 2)
    assert questions.answered(2) == ([b"b"], None)
