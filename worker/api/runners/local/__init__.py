"""The local runner: one worker process for each task."""
