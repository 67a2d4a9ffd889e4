"""A scenario's matrix -> every cell a run, all of them in one file; that file -> which setting is right."""
