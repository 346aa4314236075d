"""Attacks on a running API, while a second account measures what it gets."""
