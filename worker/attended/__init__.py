"""The time in which a process has run: deadlines leave out what it could not observe."""
