"""The decisions of the node, as pure functions: nothing here opens, sleeps, draws or tells time."""
