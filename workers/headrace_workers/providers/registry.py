"""The wire formats that ship with Headrace, by the names that ``api =`` has in ``headrace.toml``."""

from __future__ import annotations

from headrace_workers.providers.anthropic import api as anthropic
from headrace_workers.providers.google import api as google
from headrace_workers.providers.openai_chat import api as openai_chat
from headrace_workers.providers.openai_responses import api as openai_responses
from headrace_workers.providers.shared.wire_format import WireFormat

WIRE_FORMATS: dict[str, WireFormat] = {
    declared.name: declared
    for declared in (
        anthropic.FORMAT,
        google.FORMAT,
        openai_chat.FORMAT,
        openai_responses.FORMAT,
    )
}
