"""`make soak`: hours of load with everything in it that goes wrong; at the end nothing is lost and nothing leaked."""
