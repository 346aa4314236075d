"""The API: from a task id to a live view."""
