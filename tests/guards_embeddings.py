"""Guards of embeddings: weights that a package carries, the window, the model's task."""

from tests.guarding import Guard

EMBEDDINGS = (
    Guard(
        "weights that a package carries: their digest",
        "apps/catalog/shipping.py",
        'if found != entry["sha256"]:',
        "if False:",
        "tests/test_sentence_encoder.py -k changed",
    ),
    Guard(
        "embeddings: only of models that make some",
        "apps/inference/embeddings.py",
        "if version.model.task != TASK:",
        "if False:",
        "tests/test_embeddings.py -k wrong_task",
    ),
    Guard(
        "embeddings: no text is cut in silence",
        "workers/recipes/sentence_encoder.py",
        'if len(ids) > self.window and not parameters.get("truncate"):',
        "if False:",
        "tests/test_sentence_encoder.py -k past_the_window",
    ),
    Guard(
        "embeddings: padding does not count",
        "workers/recipes/sentence_encoder.py",
        "there = mask.astype(hidden.dtype)",
        "there = np.ones(mask.shape, hidden.dtype)",
        "tests/test_sentence_encoder.py -k padding",
    ),
)
