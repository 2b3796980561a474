"""How deep property tests search: once as deep as written in `make test`, twenty times in `make test-long`."""

import os

DEPTH = int(os.environ.get("DISTMARK_TEST_DEPTH", "1"))


def examples(count: int) -> int:
    """Return how many examples a property test tries that tries `count` in `make test`."""
    return count * DEPTH
