"""What each process does for itself: start and end, environment, log, clock, descriptors. Shared by all processes."""
