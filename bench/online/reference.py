"""What the bare model says, run in this process one input at a time: the answers that every server has to give."""

from typing import Any

from bench.online.peers.served import Model
from bench.online.subjects import Subject


def reference(subject: Subject) -> list[Any]:
    """One output for each input of the subject."""
    model = Model(subject.facts, threads=1)
    return [model.run([value])[0] for value in subject.inputs]
