"""The pods of a Job -> their run files and logs, put together as one run."""
