"""One function a command, for the command line and for Python: a run of all stages, and all that is done with it."""
