"""The limits of providers: pools, rates, blocks, breakers, retries, keys, spending and shared budgets. Pure."""
