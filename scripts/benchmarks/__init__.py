"""The bench: what the worker costs and how quick it is, measured against its peers."""
