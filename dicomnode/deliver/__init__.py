"""Ways to deliver: one module for each kind of destination."""
