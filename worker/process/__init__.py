"""Processes: started, reaped, and managed by supervisord."""
