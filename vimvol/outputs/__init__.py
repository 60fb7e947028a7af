"""The output of a run: who writes it, what made it, what is recorded, and what of an earlier run can stay."""
