"""A store of layers: a directory that any number of processes and machines add to and remove from at once."""
