"""Prepares texts that leave a process: escapes them, and removes secrets.

Also guesses misspelt names. Shared by all processes.
"""
