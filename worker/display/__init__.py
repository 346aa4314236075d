"""The display: the X server and its window manager."""
