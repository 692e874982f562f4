"""Whether a model says what is true, and says that it does not know where it does not."""
