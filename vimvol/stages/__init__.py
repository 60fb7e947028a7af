"""One function a stage, at the level of the volume."""
