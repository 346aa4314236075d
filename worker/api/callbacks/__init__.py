"""Callbacks: the notification that a task has ended."""
