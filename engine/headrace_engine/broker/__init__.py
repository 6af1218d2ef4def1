"""The broker process: who may run where, and who is alive."""
