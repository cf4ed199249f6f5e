"""Real workers, a real web process and a real client: each scenario, and what the client saw."""
