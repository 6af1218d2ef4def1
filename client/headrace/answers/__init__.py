"""From run events to text, tool calls, usage and the result. Shared by all processes."""
