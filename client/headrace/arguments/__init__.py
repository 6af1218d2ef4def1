"""From the arguments of a call to a checked request. Used by clients only."""
