"""JSON schemas of Python types, their portable form that every provider takes, and values read back into the types."""
