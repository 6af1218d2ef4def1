"""Reads stored spans from the data directory, for the command line."""
