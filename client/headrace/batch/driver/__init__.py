"""Runs the rows of a batch job: as many at once as the engine takes, each recorded before it counts as done."""
