"""The limits of one viewer: whether it reads and sends fast enough, and its share of x11vnc."""
