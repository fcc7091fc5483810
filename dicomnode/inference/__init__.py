"""Resident engine processes."""
