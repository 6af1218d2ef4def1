"""Headrace's engine: supervisor, broker and collector. Started by `python -m headrace_engine`, never imported by a client."""
