"""The interface of a wire format, and code that several formats share: errors, limits, JSON, parts of requests."""
