"""Recorded responses replayed over HTTP through the whole product. ``scripts/wire`` runs it."""
