"""Images, audio and files as content: their types, by their first bytes, and their bytes. Shared by all processes."""
