"""The messages between processes, and their encoding. Of other packages it imports only msgspec."""
