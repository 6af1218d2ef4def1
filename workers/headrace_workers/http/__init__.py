"""The HTTP client of a worker."""
