"""Computes what a run costs. Shared by all processes."""
