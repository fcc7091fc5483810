"""What reads bytes from outside, fed with bytes that nobody would send: `make fuzz MINUTES=60`.

Beside `tests` and not in it, as `bench` is, because it runs as long as it is told to. `tests/test_fuzz.py` gives each
target its corpus and a fixed number of mutations of it in every run of the tests.
"""
