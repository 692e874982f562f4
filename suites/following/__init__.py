"""Instructions that a rule or a judge can check."""
