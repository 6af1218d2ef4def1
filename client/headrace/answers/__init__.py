"""Puts the events of a run together: text, tool calls, usage, result. Shared by all processes."""
