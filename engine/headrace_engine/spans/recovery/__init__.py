"""Spans that dead engines and dead processes left: their slots and spools are taken over."""
