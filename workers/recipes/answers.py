"""How close a text is to a reference, as SQuAD's authors measure it (Rajpurkar et al. 2016, section 6.1)."""

import re
import string
from collections import Counter

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normal(text: str) -> list[str]:
    """Lower-case words without punctuation and English articles."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def word_f1(found: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words, 0..1. Two texts without words agree."""
    ours, theirs = normal(found), normal(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def exact(found: str, reference: str) -> bool:
    """Whether the words are the same."""
    return normal(found) == normal(reference)
