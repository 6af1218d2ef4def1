"""An agent with two tools. The model calls them as often as it needs, and then answers.

python examples/agent.py [MODEL] [QUESTION]
"""

from __future__ import annotations

import sys
from typing import Annotated

from headrace import Client, HeadraceError, TextDelta, ToolCallReturned, ToolCallStarted

WEATHER = {"Tokyo": "clear, 21 °C", "Oslo": "snow, -3 °C"}


def get_weather(city: Annotated[str, "The city's English name"]) -> str:
    """Return the weather in a city."""
    return WEATHER.get(city, "not known")


def convert_to_fahrenheit(celsius: float) -> float:
    """Convert a temperature.

    Args:
        celsius: The temperature in degrees Celsius.
    """
    return celsius * 9 / 5 + 32


def main(model: str = "gpt-4o", question: str = "How warm are Tokyo and Oslo, in Fahrenheit?") -> None:
    """Run the agent, and show what it does."""
    with Client() as client:
        stream = client.run_tools(
            model=model,
            messages=question,
            tools=[get_weather, convert_to_fahrenheit],
            max_turns=5,
            stream=True,
        )
        for event in stream.events():
            match event:
                case TextDelta():
                    print(event.text, end="", flush=True)
                case ToolCallStarted():
                    print(f"\n[{event.call.name} {event.call.arguments}]")
                case ToolCallReturned():
                    print(f"[{event.call.name}: {event.error or event.content}]")
                case _:
                    pass
        result = stream.result.result()
    print(f"\n{len(result.turns)} turns, {result.usage.total_tokens} tokens")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except HeadraceError as error:
        sys.exit(str(error))
