"""The VNC server, x11vnc, and what belongs to it."""
