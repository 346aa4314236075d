"""Processes: started, reaped, and managed through supervisord."""
