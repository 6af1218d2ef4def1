"""Checks the arguments of a call, and makes the run request. Used by clients only."""
