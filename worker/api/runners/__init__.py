"""Runners: each starts a worker for each task and reports its state."""
