"""One run in its worker, from its request to its terminal message."""
