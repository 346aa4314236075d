"""The start of a process, made independent of what it inherits."""
