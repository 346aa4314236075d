"""The task: what to run, and the process that runs it."""
