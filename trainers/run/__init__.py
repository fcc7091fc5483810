"""A run's folder: what a training leaves there, and what may be said of it."""
