"""Small tasks of the invented world, which need no data set."""
