"""Prepares texts that leave a process: escapes them, and removes secrets.

Also guesses misspelt names, and knows attributes of other libraries. Shared by all processes.
"""
