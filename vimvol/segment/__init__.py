"""From boundaries to segments: arrays in, arrays out."""
