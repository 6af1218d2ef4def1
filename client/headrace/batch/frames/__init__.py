"""Frames of pandas and polars as the input of a batch job, with a column of results as its output."""
