"""One run in its worker, from its request to its last message."""
