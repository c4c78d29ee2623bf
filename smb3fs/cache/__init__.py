"""What leases permit to keep, and how it is given up when they are taken back."""
