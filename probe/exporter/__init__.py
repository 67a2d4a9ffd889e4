"""A run while it goes -> its state for Prometheus, rendered when it is scraped."""
