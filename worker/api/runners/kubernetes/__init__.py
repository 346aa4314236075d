"""The kubernetes runner: one Job for each task."""
