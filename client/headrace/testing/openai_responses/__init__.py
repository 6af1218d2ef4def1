"""The simulated provider's Responses API of OpenAI."""
