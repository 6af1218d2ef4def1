"""The simulated provider's Anthropic Messages API."""
