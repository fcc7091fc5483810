"""`python -m bench.arrivals`: how often a series is closed too early, and how long it is waited for."""
