"""Chats with a model in the terminal. The conversation is kept in a file, so that the next start goes on with it.

python examples/chat.py [MODEL] [FILE]      (Ctrl-C stops an answer; an empty line or Ctrl-D ends the chat)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from headrace import Client, HeadraceError, Message


def load(file: Path) -> list[Message]:
    """Return the conversation so far."""
    if not file.exists():
        return []
    return [Message.from_dict(message) for message in json.loads(file.read_text("utf-8"))]


def save(file: Path, history: list[Message]) -> None:
    """Write the conversation. It has all that the provider needs to go on, such as signatures."""
    file.write_text(json.dumps([message.to_dict() for message in history], indent=1), "utf-8")


def read_question() -> str:
    """Return what the user types, or nothing at the end."""
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        return ""


def main(model: str = "gpt-4o", name: str = "chat.json") -> None:
    """Read a line, stream the answer, and so on."""
    file = Path(name)
    history = load(file)
    with Client() as client:
        while question := read_question():
            asked = [*history, Message(role="user", content=question)]
            try:
                with client.run_local(model=model, messages=asked, stream=True) as stream:
                    for chunk in stream:
                        print(chunk, end="", flush=True)
                    result = stream.result.result()
            except KeyboardInterrupt:
                print(" [stopped]")
                continue
            except HeadraceError as error:
                print(f"\n{error}", file=sys.stderr)
                continue
            print()
            history = [*asked, result.message]
            save(file, history)


if __name__ == "__main__":
    main(*sys.argv[1:])
