"""The arena: all ways to make defects, and to find them, on the same folds by one detector."""
