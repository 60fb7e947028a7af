"""Before the first stage of a run: what is decided once, what it will take, whether it fits, and what is told of it."""
