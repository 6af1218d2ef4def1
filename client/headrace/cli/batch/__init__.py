"""`headrace batch`: runs a file of prompts with a live display, and shows the state of a job."""
