"""One run as its client sees it: its states, its reader, its result. Used by clients only."""
