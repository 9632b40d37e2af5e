"""Mixed models whose features are looked up by item."""
