"""Frames between processes: sockets, one server and one link for all processes, and who the peer is. Shared by all processes."""
