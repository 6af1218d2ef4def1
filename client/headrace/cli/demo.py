"""``scripts/demo``: shows what Headrace does, in twenty seconds and without a key.

Run as ``python -m headrace.cli.demo``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from headrace.cli.interrupt import end_on_interrupt, on_interrupt, raise_interrupt
from headrace.cli.shared.exit_codes import ExitCode, exit_code
from headrace.cli.shared.explain import explanation
from headrace.cli.shared.terminal import bold, dim, green, red
from headrace.client import Client
from headrace.errors import HeadraceError
from headrace.process.standard_streams import guarded, write_as_it_is
from headrace.testing import Script, SimulatedProvider
from headrace.types import StreamResult

_PACE = 0.03
_ABORT_AFTER = 200  # characters
_SIMULATED_STREAMS = 200
_PAID_STREAMS = 5
_CHUNKS = 80
_CHUNK_PACE = 0.05

_NUMBERED = "".join(f"{number} " for number in range(_CHUNKS))
"""The answer of a simulated provider that is told to repeat."""

_WEATHER_TOOL = {
    "name": "get_weather",
    "description": "Get current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
}


def main() -> int:
    """Run the demo and return its exit code, even if the output is closed meanwhile."""
    return guarded(_shown)


def _shown() -> int:
    """Run the demo and return its exit code. Leaves no process behind, even after an error."""
    # scripts/demo ignores Ctrl-C while the interpreter starts, because it would show a traceback.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with on_interrupt(raise_interrupt), _provider() as provider, Client() as client:
            demo = _Demo(client, provider)
            demo.show_stream()
            demo.show_tool_call()
            demo.show_abort()
            demo.show_many_streams()
            demo.show_summary()
    except HeadraceError as error:
        print(f"\nheadrace: {explanation(error)}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("\nheadrace: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    finally:
        end_on_interrupt()
    return ExitCode.OK


@contextlib.contextmanager
def _provider() -> Iterator[SimulatedProvider | None]:
    """Start a simulated provider for the demo's engine. Yield None if the environment has a key for the real one."""
    os.environ.pop("HEADRACE_ENGINE", None)  # a running engine would use its own environment, not this one
    if os.environ.get("OPENAI_API_KEY"):
        print("OPENAI_API_KEY is set: the demo uses the real provider, with short prompts and few streams.")
        yield None
        return
    print("No OPENAI_API_KEY: the demo uses a simulated provider, a process on this machine with OpenAI's wire format.")
    # The child inherits the signal mask and so ignores Ctrl-C. This process ends it through its standard input.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        provider = SimulatedProvider(Script(pace=_PACE), process=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with provider:
        os.environ.update(provider.environment)
        yield provider


class _Demo:
    def __init__(self, client: Client, provider: SimulatedProvider | None) -> None:
        self._client = client
        self._provider = provider
        self._model = "gpt-4o" if provider is not None else "gpt-4o-mini"
        self._facts: list[tuple[bool, str]] = []

    def show_stream(self) -> None:
        """Show a stream as it arrives."""
        _heading("1", "A stream, word by word")
        started_at = time.monotonic()
        stream = self._client.run_local(model=self._model, messages=_ask("How does a water mill work?"), stream=True)
        first_at = None
        for chunk in stream:
            first_at = first_at or time.monotonic()
            _say(chunk)
        result = stream.result.result()
        wait = (first_at or time.monotonic()) - started_at
        _note(f"{_tokens(result)} · first chunk after {wait * 1000:.0f} ms, which includes the engine's start")

    def show_tool_call(self) -> None:
        """Show a tool call, and the answer with the tool's result."""
        _heading("2", "A tool call, and the follow-up turn")
        messages: list[Any] = _ask("What is the weather in Tokyo?")
        stream = self._client.run_local(model=self._model, messages=messages, stream=True, tools=[_WEATHER_TOOL])
        for chunk in stream:
            _say(chunk)
        result = stream.result.result()
        if not result.tool_calls:
            _note("the model answered without the tool")
            return
        call = result.tool_calls[0]
        weather = {"location": call.arguments.get("location"), "temperature": 21, "sky": "clear"}
        print(f"  the model calls   {call.name}({json.dumps(call.arguments)})")
        print(f"  the tool answers  {json.dumps(weather)}")
        answers = [
            {"role": "tool", "tool_call_id": each.id, "tool_name": each.name, "content": json.dumps(weather)}
            for each in result.tool_calls
        ]
        follow_up = self._client.run_local(
            model=self._model, messages=[*messages, result.message, *answers], stream=True, tools=[_WEATHER_TOOL]
        )
        _write("  the model says    ")
        for chunk in follow_up:
            _say(chunk)
        _note(_tokens(follow_up.result.result()))

    def show_abort(self) -> None:
        """Show an abort, and how soon the provider notices it."""
        _heading("3", f"An abort after {_ABORT_AFTER} characters")
        if self._provider is not None:
            self._provider.clear()
        stream = self._client.run_local(model=self._model, messages=_ask("Write a very long essay."), stream=True)
        characters = 0
        for chunk in stream:
            _say(chunk)
            characters += len(chunk)
            if characters > _ABORT_AFTER:
                break
        aborted_at = time.monotonic()
        stream.abort()
        result = stream.result.result()
        resolved_after = time.monotonic() - aborted_at
        facts = f"aborted={result.aborted}, {len(result.text)} characters kept, result after {_ms(resolved_after)}"
        if self._provider is not None:
            (request,) = self._provider.wait_until(lambda requests: all(request.ended_at for request in requests))
            if request.closed_at is not None:
                closed_after = _ms(request.closed_at - aborted_at)
                facts += f" · the provider saw its connection close after {closed_after}"
                self._facts.append((result.aborted, f"an abort reached the provider in {closed_after}"))
        _note(facts)

    def show_many_streams(self) -> None:
        """Show many concurrent streams, as a count."""
        count = _PAID_STREAMS if self._provider is None else _SIMULATED_STREAMS
        _heading("4", f"{count} concurrent streams")
        if self._provider is None:
            print(f"  only {count}, to save your money; without a key the demo runs {_SIMULATED_STREAMS}")
        counter = _StreamCounter(count)
        try:
            asyncio.run(self._run_many(counter))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        print(dim(f"  {counter.whole} of {count} arrived whole: every chunk, in order, once", sys.stdout))
        fact = f"{count} streams at once, {counter.rate():,.0f} chunks/s, {counter.whole} of {count} whole"
        self._facts.append((counter.whole == count, fact))

    async def _run_many(self, counter: _StreamCounter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.run has created it
        loop = asyncio.get_running_loop()
        with on_interrupt(lambda: loop.call_soon_threadsafe(task.cancel)):
            ticking = asyncio.create_task(counter.show_until_done())
            await asyncio.gather(*(self._run_one(counter) for _ in range(counter.count)))
            await ticking

    async def _run_one(self, counter: _StreamCounter) -> None:
        script = {"simulate": {"repeat": _CHUNKS, "pace": _CHUNK_PACE}}
        stream = await self._client.arun_local(
            model=self._model,
            messages=_ask("Count to ten in words."),
            custom_options=script if self._provider is not None else {},
            stream=True,
        )
        counter.open += 1
        text = ""
        async for chunk in stream:
            counter.chunks += 1
            text += chunk
        result = await stream.result
        counter.stream_ended()
        counter.whole += text == (result.text if self._provider is None else _NUMBERED)

    def show_summary(self) -> None:
        """Show a summary, and what to try next."""
        print(f"\n{bold('What you saw', sys.stdout)}")
        for is_good, fact in self._facts:
            print(f"  {green('✓', sys.stdout) if is_good else red('✗', sys.stdout)} {fact}")
        root = os.path.relpath(sys.prefix)
        print(f"\n{bold('Try next', sys.stdout)}")
        steps = _next_steps(os.path.join(root, "bin", "headrace"), self._provider is not None)
        width = max(len(command) for command, _ in steps)
        for command, purpose in steps:
            print(f"  {command:<{width}}  {dim(purpose, sys.stdout)}")


class _StreamCounter:
    """Counts many streams, and shows the count: on a terminal as one changing line, else as a line each second."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.open = 0
        self.finished = 0
        self.chunks = 0
        self.whole = 0
        self._started_at = self._ended_at = time.monotonic()
        self._shown = (self._started_at, 0)

    def stream_ended(self) -> None:
        """Count the end of a stream."""
        self.open -= 1
        self.finished += 1
        self._ended_at = time.monotonic()

    def rate(self) -> float:
        """Return the chunks per second, from the start to the end of the last stream."""
        return self.chunks / (self._ended_at - self._started_at)

    async def show_until_done(self) -> None:
        """Show the count until every stream has finished."""
        is_terminal = sys.stdout.isatty()
        while self.finished < self.count:
            await asyncio.sleep(0.1 if is_terminal else 1.0)
            if is_terminal:
                write_as_it_is(sys.stdout, "\r\x1b[K")
            _write(self._line() if is_terminal else self._line() + "\n")
        _write("\n" if is_terminal else "")

    def _line(self) -> str:
        now = time.monotonic()
        before, chunks = self._shown
        self._shown = (now, self.chunks)
        rate = (self.chunks - chunks) / (now - before)
        return f"  {self.open:>4} open  {self.finished:>4} finished  {self.chunks:>7,} chunks  {rate:>7,.0f} chunks/s"


def _next_steps(headrace: str, is_simulated: bool) -> list[tuple[str, str]]:
    steps = [
        (f"{headrace} spans list", "the spans of these runs"),
        (f'{headrace} run "Tell me a story" --model gpt-4o', "one run; Ctrl-C aborts it"),
        (f"{headrace} serve", "an engine that many programs share"),
        (f"{headrace} status", "the state of that engine"),
    ]
    return (
        [(f"{headrace} simulate", "the simulated provider; prints what to export"), *steps] if is_simulated else steps
    )


def _heading(number: str, text: str) -> None:
    print(f"\n{bold(f'{number}. {text}', sys.stdout)}")


def _note(text: str) -> None:
    _write("\n")
    print(dim(f"  {text}", sys.stdout))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    _write(text)


def _ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _tokens(result: StreamResult) -> str:
    return f"{result.finish_reason} · {result.usage.total_tokens} tokens"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
