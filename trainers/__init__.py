"""Makes the engine bundles that engines run. The recipes of the published papers come here; none has been built yet."""
