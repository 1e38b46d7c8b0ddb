"""Beside public code: each rule as others have written it gives the same numbers."""

import pytest
from torch.testing import assert_close

from memlib import matrix_memory
from tests.fast_weights import public

VERSION = public.version()
needs_it = pytest.mark.skipif(VERSION is None, reason=f"needs {public.__doc__.splitlines()[2]}")


@needs_it
@pytest.mark.parametrize("rule", public.RULES)
def test_the_public_references_agree(rule):
    tokens, gates = public.drawn(rule, (2, 3, 128), width=16)
    ours = [matrix_memory(*tokens, **gates, chunk=chunk) for chunk in (1, 16)]
    compared = 0
    for name, theirs in public.ways(rule):
        for reads, state in ours:
            found = theirs(*tokens, **gates)
            assert_close(reads, found[0], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
            assert_close(state, found[1], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
            compared += 1
    assert compared in (2, 4)
