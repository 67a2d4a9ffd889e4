"""How fast and how exact the prober is on this machine: `make bench`."""
