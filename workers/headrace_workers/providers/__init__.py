"""One module per provider wire format; `protocol.py` says what each must offer, `registry.py` lists them."""
