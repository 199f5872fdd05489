"""How fast engines are beside peers and the machine; train and evaluate every product of a data set."""
