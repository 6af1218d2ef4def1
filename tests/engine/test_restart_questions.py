"""The broker's account of who has asked for new workers."""

from __future__ import annotations

from headrace_engine.restart_questions import RestartQuestions


def test_each_asker_is_told_once() -> None:
    questions = RestartQuestions()
    first, second = questions.asked(b"a"), questions.asked(b"b")

    assert questions.open == [first, second]
    assert questions.answered(second) == b"b"
    assert questions.answered(second) is None
    assert questions.answered(first) == b"a"
    assert questions.open == []


def test_who_asks_again_has_one_question_open() -> None:
    questions = RestartQuestions()
    numbers = [questions.asked(b"a") for _ in range(1000)]

    assert questions.open == numbers[-1:]
    assert [questions.answered(number) for number in numbers[:-1]] == [None] * 999


def test_who_has_gone_is_told_nothing() -> None:
    questions = RestartQuestions()
    number = questions.asked(b"a")
    questions.left(b"a")
    questions.left(b"never came")

    assert questions.answered(number) is None
    assert questions.answered(10**9) is None
