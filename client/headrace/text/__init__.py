"""Texts that leave a process: escaped, without secrets; and guesses at a misspelt name. Shared by all processes."""
