"""inspect-ai's tasks on our engines."""
