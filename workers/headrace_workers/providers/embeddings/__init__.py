"""What the wire formats that have embeddings share; embeddings of OpenAI-compatible servers."""
