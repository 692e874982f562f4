"""Answers of models that think aloud, for suites."""

from harness.thoughts import TAGS, Tags, answer_place, final_answer, tags_of

__all__ = ["TAGS", "Tags", "answer_place", "final_answer", "tags_of"]
