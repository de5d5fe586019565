"""Controllers: a policy, and the memory that turns observations into chunks in time."""
