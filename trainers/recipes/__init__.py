"""Recipes: a TOML file for each published model, how it is read, and what a run does otherwise than it says."""
