"""Engines that come along and have no networks."""
