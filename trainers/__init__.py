"""Makes the engine bundles that engines run: trains the nets of published recipes, judges them, and ships them."""
