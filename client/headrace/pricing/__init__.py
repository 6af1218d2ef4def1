"""What a run costs. Shared by all processes."""
