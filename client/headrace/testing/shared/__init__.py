"""What the simulated provider's wire formats share."""
