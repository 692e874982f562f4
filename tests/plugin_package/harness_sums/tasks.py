"""The shortest real task: items, how they are asked, how an answer is scored."""

from harness.errors import BadInput
from harness.judging.asking import Verdicts, grade_with, metric_name, note_of
from harness.records import Sampling, Score
from harness.tasks import Item, MetricSpec, RequestTask, aggregate_metric


class Sums(RequestTask):
    """a + b for a and b below fifty, exact match on the first word of the answer."""

    metrics = {"accuracy": MetricSpec(chance=0.0)}
    defaults = Sampling(max_tokens=8)

    def items(self):
        pairs = [(7 * i % 50, 11 * i % 50) for i in range(400)]
        return [Item(str(i), {"a": a, "b": b}, target=str(a + b)) for i, (a, b) in enumerate(pairs)]

    def requests(self, item):
        return self.ask(f"What is {item.doc['a']} + {item.doc['b']}?")

    def score(self, item, completions):
        words = completions[0].outputs[0].text.split()
        return {"accuracy": Score(float(words[:1] == [item.target]))}


class SumChoices(Sums):
    """The same as a choice among four answers, by their log-likelihoods."""

    requests_per_item = 4
    uses_chat = False

    def requests(self, item):
        right = int(item.target)
        return self.compare(f"{item.doc['a']} + {item.doc['b']} =", [f" {right + i}" for i in range(4)])

    def score(self, item, completions):
        values = [completion.loglikelihood for completion in completions]
        return {"accuracy": Score(float(values.index(max(values)) == 0))}


class JudgedSums(Sums):
    """The same, and a judge that is asked for the sum: does the answer hold what it says?"""

    graded_apart = True

    def __init__(self, ref, context):
        super().__init__(ref, context)
        if context.judge is None:
            raise BadInput(f"task {ref.label!r} needs a judge; give --judge MODEL")
        self.agrees = metric_name(context.judge, "agrees")
        self.notes.append(note_of(context.judge))

    def grade(self, samples):
        def question(sample):
            a, b = (self._items[sample.sample_id].doc[name] for name in "ab")
            return [[{"role": "user", "content": f"What is {a} + {b}? Somebody says: {sample.outputs[0]}"}]]

        def agreement(sample, answers):
            return {self.agrees: Score(float(answers[0].strip() in sample.outputs[0]), detail=answers[0])}

        return grade_with(
            self.context.judge, samples, Verdicts(question, agreement, [self.agrees], max_tokens=8)
        )

    def aggregate(self, samples):
        return {self.agrees: aggregate_metric(samples, self.agrees, MetricSpec())}
