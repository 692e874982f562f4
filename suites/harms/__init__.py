"""Toxicity, bias, refusal and sycophancy."""
