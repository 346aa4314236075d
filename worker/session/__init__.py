"""Runs one task from start to clean-up."""
