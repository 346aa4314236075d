"""Example tasks."""
