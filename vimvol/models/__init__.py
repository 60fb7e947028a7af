"""Networks by name, their building blocks and their checkpoints."""
