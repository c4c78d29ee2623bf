"""What the client holds open on the server, apart from the connection that carries it."""
