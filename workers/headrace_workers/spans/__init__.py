"""The spans of a worker, until the collector has stored them."""
