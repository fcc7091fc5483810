"""Recipes that come with the package: one TOML file for each published model."""
