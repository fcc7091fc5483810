"""What `make bench` measures: ratios and medians of interleaved rounds, on this machine, beside peers in one run."""
