"""`worker doctor`: what is missing on this machine, and what to do about it."""
