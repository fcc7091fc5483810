"""Trained nets on their way out: as a bundle of the node, and as channels for whoever segments."""
