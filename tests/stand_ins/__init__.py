"""Programs that stand in for what is not here. Each says so, and is used by tests only."""
