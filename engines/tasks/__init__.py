"""The closed list of what an engine bundle may do: what stands around its networks, one file for each task."""
