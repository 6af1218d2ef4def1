"""The wire formats by their names in the settings. Knows no provider: which one speaks what is a matter of settings."""

from __future__ import annotations

from headrace_workers.providers.anthropic import stream as anthropic
from headrace_workers.providers.google import stream as google
from headrace_workers.providers.openai_chat import stream as openai_chat
from headrace_workers.providers.openai_responses import stream as openai_responses
from headrace_workers.providers.shared.wire_format import ProviderApi

API: dict[str, ProviderApi] = {
    "anthropic": anthropic.API,
    "google": google.API,
    "openai-chat": openai_chat.API,
    "openai-responses": openai_responses.API,
}
