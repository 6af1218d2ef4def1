"""The supervisor process: starts, watches, replaces and ends the other processes."""
