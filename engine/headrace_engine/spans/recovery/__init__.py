"""Takes over the spans that ended engines and ended processes left in their slots and spools."""
