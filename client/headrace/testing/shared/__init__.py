"""Scripts, replies, the request log and checks: shared by all wire formats of the simulated provider."""
