"""Engines whose work is done by the networks of a bundle: stage after stage, slab by slab."""
