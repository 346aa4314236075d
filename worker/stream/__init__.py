"""The stream: what a viewer connects to."""
