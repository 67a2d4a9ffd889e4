"""A scenario file, or options -> a checked plan; a plan -> a run, written down while it goes."""
