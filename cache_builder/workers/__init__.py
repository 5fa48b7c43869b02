"""Several builders on one cache: leases between processes, and the same units on Ray."""
