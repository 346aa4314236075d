"""Limits on what a port accepts from its clients, applied before a request is served."""
