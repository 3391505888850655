"""The compiled sums over stripes against those of numpy, and both against sums by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.entropy.native import codebooks as native
from edgekit.codecs.entropy.reference import codebooks as reference

pytestmark = pytest.mark.usefixtures("loads")


def drawn(n: int, groups: int, width: int, h: int, w: int, words: int, seed: int) -> tuple[np.ndarray, ...]:
    """A feature, codes, and books."""
    rng = np.random.default_rng(seed)
    feature = rng.normal(size=(n, groups * width, h, w)).astype(np.float32) * np.float32(10.0 ** rng.integers(-3, 4))
    codes = rng.integers(0, words, (n, groups, h, w), dtype=np.int32)
    # Groups first, as a codec's view of a table's codebook has them.
    return feature, codes, rng.normal(size=(words, groups, width)).astype(np.float32).transpose(1, 0, 2)


sizes = st.integers(1, 6)


@settings(max_examples=150, deadline=None)
@given(n=sizes, groups=sizes, width=st.integers(1, 20), h=sizes, w=sizes, words=st.integers(1, 40), seed=sizes)
def test_both_sum_alike(n: int, groups: int, width: int, h: int, w: int, words: int, seed: int) -> None:
    feature, codes, books = drawn(n, groups, width, h, w, words, seed)
    for ours, theirs in zip(
        native.stripes(feature, codes, books), reference.stripes(feature, codes, books), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs, strict=True)


@pytest.mark.parametrize("kernels", [native, reference], ids=["native", "numpy"])
def test_sums_are_those_of_the_stripes(kernels):
    feature, codes, books = drawn(3, 2, 5, 4, 3, 7, 0)
    # Channels in another order: not contiguous.
    feature = feature[:, ::-1]
    sums, counts, errors, spreads = kernels.stripes(feature, codes, books)
    for g in range(2):
        points = feature[:, 5 * g : 5 * g + 5].transpose(0, 2, 3, 1).reshape(-1, 5).astype(np.float64)
        picked = codes[:, g].reshape(-1)
        for word in range(7):
            np.testing.assert_allclose(sums[g, word], points[picked == word].sum(axis=0), atol=1e-6)
            assert counts[g, word] == (picked == word).sum()
        np.testing.assert_allclose(errors[g], ((points - books[g][picked]) ** 2).sum(axis=1), rtol=1e-5)
        assert spreads[g] == pytest.approx(((points - points.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("kernels", [native, reference], ids=["native", "numpy"])
@pytest.mark.parametrize("code", [-1, 7, 2**31 - 1, -(2**31)])
def test_a_code_of_no_codeword_is_an_error(kernels, code):
    feature, codes, books = drawn(3, 2, 5, 4, 3, 7, 0)
    codes[2, 1, 3, 2] = code
    with pytest.raises(IndexError, match="of 7 codewords"):
        kernels.stripes(feature, codes, books)
