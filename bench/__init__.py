"""How fast and how exact the prober is on this machine, beside the tools people use now: `make bench`."""
