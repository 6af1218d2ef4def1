"""Spans, the records of runs: their fields, how they are stored, and how they reach the collector.

Shared by all processes.
"""
