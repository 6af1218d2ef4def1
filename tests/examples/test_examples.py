"""The programs in examples/ do what they say, with each wire format."""

from __future__ import annotations

import asyncio
import builtins
import gc
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headrace import Client, OutputValidationError
from headrace.testing import Script, ScriptedToolCall, SimulatedProvider
from tests.conftest import ROOT
from tests.waiting import wait_until

EXAMPLES = ROOT / "examples"
MODELS = ["gpt-4o", "openai-responses/gpt-4o", "claude-sonnet-4-6", "gemini-2.5-flash"]
"""One model for each wire format."""
each_model = pytest.mark.parametrize("model", MODELS)


def load(name: str) -> ModuleType:
    """Import an example as the program that it is."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _running_engine(client: Client) -> None:
    """Keep the engine of this process running: each example makes a client, and closes it."""


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


@each_model
def test_a_chat_goes_on_where_its_file_ends(
    model: str, provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    chat, file = load("chat"), tmp_path / "chat.json"
    provider.enqueue(
        Script(reasoning="Think of rivers.", text="The Rhine."), Script(status=503), Script(text="1,230 km.")
    )

    type_in(monkeypatch, "Name a river.", "Is this refused?", "")
    chat.main(model, str(file))
    type_in(monkeypatch, "How long is it?", "")
    chat.main(model, str(file))

    shown = capsys.readouterr()
    assert "The Rhine." in shown.out
    assert "1,230 km." in shown.out
    assert "503" in shown.err
    roles = [message["role"] for message in json.loads(file.read_text())]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert provider.requests()[-1].status == 200


def test_ctrl_c_stops_an_answer_and_the_end_of_the_input_ends_the_chat(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def interrupted(text: str = "", **more: Any) -> None:
        if text.startswith("The"):
            raise KeyboardInterrupt
        builtins.print(text, **more)

    chat = load("chat")
    provider.enqueue(Script(text="The Rhine."), Script(text="1,230 km."))
    monkeypatch.setattr(chat, "print", interrupted, raising=False)
    type_in(monkeypatch, "Name a river.", "How long is it?")

    chat.main(name=str(tmp_path / "chat.json"))

    shown = capsys.readouterr().out
    assert "[stopped]" in shown
    assert "1,230 km." in shown


def test_summaries_that_are_interrupted_leave_no_task_behind(
    provider: SimulatedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    async def interrupted() -> None:
        running = asyncio.create_task(load("summaries").main())
        await asyncio.to_thread(wait_until, provider.requests)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gc.collect()

    provider.enqueue(*[Script(silent=True)] * 30)
    asyncio.run(interrupted())

    assert "never retrieved" not in caplog.text


@each_model
def test_thirty_summaries_come_and_a_failure_is_counted(model: str, provider: SimulatedProvider, capsys: Any) -> None:
    provider.enqueue(Script(status=429), *[Script(text="The mill ran.")] * 29)

    assert asyncio.run(load("summaries").main(model)) == 1

    shown = capsys.readouterr()
    assert shown.out.count("The mill ran.") == 29
    assert re.search(r"^29 summaries, \d+ tokens, 1 failed$", shown.out, re.MULTILINE)
    assert "429" in shown.err


@each_model
def test_the_agent_calls_its_tools_and_answers(model: str, provider: SimulatedProvider, capsys: Any) -> None:
    provider.enqueue(
        Script(
            tool_calls=[
                ScriptedToolCall("get_weather", {"city": "Tokyo"}),
                ScriptedToolCall("convert_to_fahrenheit", {"celsius": 21}),
            ]
        ),
        Script(text="Tokyo has 69.8 °F."),
    )

    load("agent").main(model)

    shown = capsys.readouterr().out
    assert "Tokyo has 69.8 °F." in shown
    assert "clear, 21" in shown
    assert "69.8" in shown
    assert re.search(r"^2 turns, \d+ tokens$", shown, re.MULTILINE)
    assert [record.status for record in provider.requests()] == [200, 200]


@each_model
def test_an_invoice_is_extracted_into_three_kinds_of_types(
    model: str, provider: SimulatedProvider, capsys: Any
) -> None:
    lines = [{"article": "grindstone", "count": 2, "price": 450.0}, {"article": "belt", "count": 1, "price": 80.5}]
    provider.enqueue(
        Script(text=json.dumps({"number": 17, "day": "2026-11-03", "lines": lines})),
        Script(text=json.dumps({"is_paid": False, "day": None})),
        Script(text=json.dumps({"total": 980.5})),
    )

    load("extraction").main(model)

    assert capsys.readouterr().out == "17 of 03 November 2026: ['grindstone', 'belt']\nopen\n980.50\n"


def test_an_answer_that_does_not_fit_is_an_error_with_its_place(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(text='{"number": "seventeen", "day": "2026-11-03", "lines": []}'))

    with pytest.raises(OutputValidationError, match=r"does not fit at \$\.number: "):
        load("extraction").main()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
