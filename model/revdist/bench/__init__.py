"""Measures how fast engines are beside peers and the machine; trains and evaluates every product of a data set."""
