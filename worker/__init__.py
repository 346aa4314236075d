"""One browser task on a live display, shown over noVNC and ended cleanly."""
