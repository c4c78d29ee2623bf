"""What tools/faults is made of: a workload that knows what it did, faults to a plan, and the comparison in the end."""
