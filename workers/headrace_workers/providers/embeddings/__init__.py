"""Embeddings: code for all wire formats that have them, and the embeddings of OpenAI-compatible servers."""
