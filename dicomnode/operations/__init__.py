"""One function for each thing that a person can ask of the node."""
