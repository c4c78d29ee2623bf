"""Live connections to the server: transports, channels, sessions and the pool that hands requests to them."""
