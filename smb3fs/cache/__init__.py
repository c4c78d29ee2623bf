"""What the server's leases permit to keep."""
