"""What a job is, and its stages, one a file: arrays and tables of an output in, arrays and tables of it out."""
