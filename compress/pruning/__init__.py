"""What pruning steps stand on: importance, patterns, groups of channels, and budgets."""
