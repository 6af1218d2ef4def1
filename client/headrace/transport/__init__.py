"""Frames between processes: sockets, framing, and who the peer is. Shared by all processes."""
