"""The database files of spans: what is written, when, and which span of a run is kept."""
