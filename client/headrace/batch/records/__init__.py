"""Writes results and errors of a batch job as output lines, and reads them back."""
