"""The judge: a model that grades where a rule cannot, and what is asked of it."""
