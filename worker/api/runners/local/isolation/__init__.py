"""How the local runner isolates its tasks from the API, from the machine, and from each other."""
