"""The batch APIs of providers, at half the price: OpenAI, Anthropic, Google, and background runs of OpenAI."""
