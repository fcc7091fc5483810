"""Bytes at rest (files), engine results at rest (results), and what is known of them (index)."""
