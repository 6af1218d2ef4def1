"""The simulated provider's Chat Completions and embeddings APIs of OpenAI."""
