"""Spans: what is kept of a run, where, and its way to the collector. Shared by all processes."""
