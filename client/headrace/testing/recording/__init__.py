"""Records the answers of real providers without keys, and reads recordings."""
