"""Sinks: each sends stored spans to one place, at its own speed. Each span is sent at least once."""
