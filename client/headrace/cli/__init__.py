"""The ``headrace`` command: one module per command. Not an API: don't import anything from here."""
