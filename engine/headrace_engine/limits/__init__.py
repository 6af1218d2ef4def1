"""The limits of providers: pools, rates, blocks, breakers, retries, keys and spending. Pure, but for the modules that say so."""
