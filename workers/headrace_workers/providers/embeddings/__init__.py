"""Embeddings of OpenAI-shaped servers and of Google."""
