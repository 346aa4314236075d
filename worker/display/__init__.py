"""The display: the X server and the window manager on it."""
