"""Storage and Verification SCP: receiving."""
