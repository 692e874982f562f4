"""The same prompts with more and less room to think."""
