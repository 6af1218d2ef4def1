"""The wire formats by their names in the settings. Knows no provider: which one speaks what is a matter of settings."""

from __future__ import annotations

from headrace_workers.providers import openai_chat
from headrace_workers.providers.protocol import ProviderApi

API: dict[str, ProviderApi] = {
    "openai-chat": openai_chat.API,
}
