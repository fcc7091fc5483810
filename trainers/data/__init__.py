"""Images to train on: where they come from, who may train on which, and how patches of them are drawn."""
