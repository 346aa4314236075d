"""The live view and the debug page."""
