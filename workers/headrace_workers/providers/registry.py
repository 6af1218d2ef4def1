"""The wire formats by their names in the settings. Knows no provider: which one speaks what is a matter of settings."""

from __future__ import annotations

from headrace_workers.providers import anthropic, google, openai_chat, openai_responses
from headrace_workers.providers.protocol import ProviderApi

API: dict[str, ProviderApi] = {
    "anthropic": anthropic.API,
    "google": google.API,
    "openai-chat": openai_chat.API,
    "openai-responses": openai_responses.API,
}
