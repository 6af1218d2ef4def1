"""Headrace's engine: supervisor and broker. Started by `python -m headrace_engine`, never imported by a client."""
