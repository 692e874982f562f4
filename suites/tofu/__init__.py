"""TOFU: what a checkpoint forgot, and what it kept."""
