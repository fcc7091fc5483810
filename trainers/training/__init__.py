"""A recipe's nets are trained here: the loop, what it stands on, and what is trained after what."""
