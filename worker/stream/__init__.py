"""The stream server: what a viewer connects to."""
