"""Batch jobs from Python: what `client.batch`, `client.map` and their async twins take, and the results that they yield."""
