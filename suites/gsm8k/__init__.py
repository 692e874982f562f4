"""GSM8K beside its own answers: variants of its problems, and more than one attempt."""
