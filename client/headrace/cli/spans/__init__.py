"""`headrace spans`: the commands that show and export stored spans."""
