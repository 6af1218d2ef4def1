"""Runs a model together with the functions that it calls, until its answer is there: `run_tools` and `arun_tools`."""
