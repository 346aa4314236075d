"""The metrics of a stream server."""
