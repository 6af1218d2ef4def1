"""What crosses a process boundary: messages and their encoding. The standard library and msgspec only."""
