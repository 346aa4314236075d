"""The docker runner: one container for each task."""
