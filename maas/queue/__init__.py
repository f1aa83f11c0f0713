"""The two ways to have model work done: `enqueue` long work for Celery, or `push` a call and `wait` for its answer.

The online queue. Calls wait in Redis, a line per version and tenant. One script takes a batch of one version from the
tenants that wait, fairly; servers on any number of machines pull, so the queue is the load balancer, batches form by
themselves under load, and an idle system adds no wait. Every caller has a deadline; whatever happens to a server or to
Redis, nobody waits longer than that. What a server holds is written down, so calls of one that died are put back.
"""

from maas.queue.callers import cancel, forget, push, wait
from maas.queue.calls import HEAVIEST, Answer, Call
from maas.queue.nudges import depth, enqueue, nudge
from maas.queue.servers import Batch, alive, answer, beat, depths, label, leave, listen, put_back, ring, take, waiting_by_label
from maas.queue.store import connect

__all__ = [
    "HEAVIEST", "Answer", "Batch", "Call", "alive", "answer", "beat", "cancel", "connect", "depth", "depths", "enqueue", "forget", "label",
    "leave", "listen", "nudge", "push", "put_back", "ring", "take", "wait", "waiting_by_label",
]  # fmt: skip
