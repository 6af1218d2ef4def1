"""Settings: headrace.toml, the environment, and who may set what. Shared by all processes."""
