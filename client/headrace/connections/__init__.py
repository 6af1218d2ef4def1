"""The connection of a client to an engine, and where that engine is. Used by clients only."""
