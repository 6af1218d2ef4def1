"""The simulated provider's Gemini API."""
