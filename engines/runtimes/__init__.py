"""What computes the networks of a bundle: one protocol, one file for each runtime."""
