"""The operator's page: a web server in a process of its own, which asks the service over a local socket and reads the
journal. What it does costs the line nothing but the answers of that socket, whose work is bounded."""
