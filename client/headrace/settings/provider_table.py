"""The built-in providers, and the prefixes of model names from which a provider is chosen. Data only."""

from __future__ import annotations

BUILT_IN: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # name: wire format, base URL, variables that may hold the key
    # The model decides between OpenAI's two APIs; the two providers after it decide by hand.
    "openai": ("openai", "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "openai-chat": ("openai-chat", "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "openai-responses": ("openai-responses", "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
    "anthropic": ("anthropic", "https://api.anthropic.com", ("ANTHROPIC_API_KEY",)),
    "google": ("google", "https://generativelanguage.googleapis.com", ("GOOGLE_API_KEY", "GEMINI_API_KEY")),
    # Services and servers with OpenAI's wire format. Each deviates from it in some way.
    "azure": ("openai-chat", "", ("AZURE_OPENAI_API_KEY",)),
    "deepseek": ("openai-chat", "https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",)),
    "groq": ("openai-chat", "https://api.groq.com/openai/v1", ("GROQ_API_KEY",)),
    "llamacpp": ("openai-chat", "http://127.0.0.1:8080/v1", ()),
    "mistral": ("openai-chat", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",)),
    "ollama": ("openai-chat", "http://127.0.0.1:11434/v1", ()),
    "openrouter": ("openai-chat", "https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",)),
    "together": ("openai-chat", "https://api.together.xyz/v1", ("TOGETHER_API_KEY",)),
    "vllm": ("openai-chat", "http://127.0.0.1:8000/v1", ()),
    "xai": ("openai-chat", "https://api.x.ai/v1", ("XAI_API_KEY",)),
}

BASE_URL_ENV: dict[str, str] = {
    "openai": "OPENAI_BASE_URL",
    "openai-chat": "OPENAI_BASE_URL",
    "openai-responses": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "google": "GOOGLE_GEMINI_BASE_URL",
    # Each user has a resource: https://NAME.openai.azure.com/openai/v1
    "azure": "AZURE_OPENAI_BASE_URL",
    "llamacpp": "LLAMACPP_BASE_URL",
    "ollama": "OLLAMA_BASE_URL",
    "vllm": "VLLM_BASE_URL",
}

MODEL_PREFIXES: tuple[tuple[str, str], ...] = (
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "google"),
)
"""Prefix of a model's name → provider. The first match counts."""
