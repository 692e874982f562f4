"""A user's own suite: rows of a file, a template, a scorer."""
