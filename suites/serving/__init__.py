"""Latency under load: what is sent when, what came back, and the figures of it."""
