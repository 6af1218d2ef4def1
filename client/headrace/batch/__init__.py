"""Batch jobs: rows of prompts in files or frames, run as fast as the limits allow, and restartable."""
