"""One module per provider wire format; `providers/shared/wire_format.py` says what each must offer, `registry.py` lists them."""
