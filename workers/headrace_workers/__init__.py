"""Headrace's worker processes: they own the provider connections and keys, and run the runs."""
