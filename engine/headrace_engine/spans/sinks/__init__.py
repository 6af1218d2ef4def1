"""Sinks: each sends the stored spans on to one place, at its own pace, at least once."""
