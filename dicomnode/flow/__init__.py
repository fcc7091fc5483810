"""The durable workflows: close, route, enhance, derive, deliver."""
