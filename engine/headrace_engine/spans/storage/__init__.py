"""The database files of spans: when spans are written, where, and which record of a run is kept."""
