"""The simulated provider's batch APIs: files, batches and background responses of OpenAI, Anthropic and Google."""
