"""Programmatic checks of constraints on an answer; tasks import them, nothing else does."""
