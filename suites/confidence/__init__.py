"""How sure a model is, beside how often it is right."""
