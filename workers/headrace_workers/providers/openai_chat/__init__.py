"""The wire format of OpenAI Chat Completions."""
