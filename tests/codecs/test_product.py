"""product: sgq with contiguous groups and faiss's training, against faiss itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.codecs.features.product import Product
from edgekit.codecs.features.sgq import SGQ
from edgekit.errors import PayloadError, UsageError

CONFIGS = [(8, 4), (4, 4), (2, 8), (1, 2)]
each_codec = pytest.mark.parametrize("codec", [Product(*config) for config in CONFIGS], ids=repr)


def feature(seed=0, n=48, channels=32):
    """After a ReLU: a few causes in every position mixed into all channels."""
    causes = np.random.default_rng(seed).normal(size=(n, 6, 8, 8)).astype(np.float32)
    mixing = np.random.default_rng(99).normal(size=(channels, 6)).astype(np.float32)
    return np.maximum(np.einsum("ck,nkhw->nchw", mixing, causes), 0)


def rows(z):
    """As faiss takes them: one vector of all channels per position."""
    return np.ascontiguousarray(z.transpose(0, 2, 3, 1).reshape(-1, z.shape[1]))


def distortion(codec, z, tables):
    return float(((codec.dequantize(codec.quantize(z, tables), tables) - z) ** 2).sum())


@pytest.fixture
def faiss():
    module = pytest.importorskip("faiss")
    module.omp_set_num_threads(1)
    return module


@each_codec
def test_the_same_codebook_gives_the_codes_of_faiss(faiss, codec):
    z, tables = feature(1), codec.calibrate(feature(0), seed=0)
    theirs = faiss.ProductQuantizer(32, codec.groups, codec.bits)
    books = np.ascontiguousarray(codec.books(tables["codebook"]))
    faiss.copy_array_to_vector(books.reshape(-1), theirs.centroids)
    packed = theirs.compute_codes(rows(z))
    # faiss fills the bytes of a vector from the least significant bit on.
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : codec.groups * codec.bits]
    expected = bits.reshape(-1, codec.groups, codec.bits) @ (1 << np.arange(codec.bits))
    got = codec.quantize(z, tables)["codes"].transpose(0, 2, 3, 1).reshape(-1, codec.groups)
    points = rows(z).reshape(-1, codec.groups, 1, 32 // codec.groups)
    distance = np.take_along_axis(((points - books) ** 2).sum(axis=3), np.stack([got, expected], axis=2), axis=2)
    np.testing.assert_allclose(distance[..., 0], distance[..., 1], rtol=1e-4, atol=1e-4)  # what differs is a tie
    assert (got == expected).mean() > 0.999


@each_codec
def test_codebooks_are_as_good_as_those_of_faiss(faiss, codec):
    z = feature(0)
    theirs = faiss.ProductQuantizer(32, codec.groups, codec.bits)
    theirs.train(rows(z))
    books = faiss.vector_to_array(theirs.centroids).reshape(codec.groups, codec.words, -1)
    tables = {"codebook": np.concatenate(list(books), axis=1), "order": np.arange(32)}
    ours = np.mean([distortion(codec, z, codec.calibrate(z, seed)) for seed in range(3)])
    assert ours <= 1.02 * distortion(codec, z, tables)


@each_codec
def test_groups_are_contiguous_and_tables_those_of_sgq(codec):
    tables = codec.calibrate(feature(), seed=0)
    codec.check_tables(32, tables)
    assert tables["order"].tolist() == list(range(32))
    same = SGQ(groups=codec.groups, bits=codec.bits)
    codes = codec.quantize(feature(1), tables)
    np.testing.assert_array_equal(codes["codes"], same.quantize(feature(1), tables)["codes"])
    assert codec.pack(codes) == same.pack(codes) and codec != same
    moved = codec.calibrate(feature(2), seed=0)
    assert codec.diff(tables, moved, 0.1) == same.diff(tables, moved, 0.1)


def test_a_significance_changes_nothing():
    codec = Product()
    weighted = codec.calibrate(feature(), seed=0, significance=np.arange(32, dtype=np.float32))
    np.testing.assert_array_equal(weighted["codebook"], codec.calibrate(feature(), seed=0)["codebook"])


@pytest.mark.parametrize("stripes", [1, 3])
def test_fewer_stripes_than_codewords(stripes):
    codec = Product(groups=2, bits=3)
    z = np.random.default_rng(0).normal(size=(stripes, 4, 1, 1)).astype(np.float32)
    assert distortion(codec, z, codec.calibrate(z, seed=0)) < 1e-9


def test_stripes_that_are_mostly_zero_leave_no_codeword_unused():
    z = np.zeros((64, 2, 4, 4), np.float32)
    z[:8] = np.random.default_rng(0).random((8, 2, 4, 4), dtype=np.float32)
    codec = Product(groups=1, bits=4)
    codes = codec.quantize(z, codec.calibrate(z, seed=0))["codes"]
    assert len(np.unique(codes)) == 16


def test_what_it_does_not_take():
    with pytest.raises(UsageError, match="product takes at least 1 group"):
        Product(groups=0)
    with pytest.raises(UsageError, match="product with 2 groups cannot code 9 channels"):
        Product(groups=2).check(9)
    with pytest.raises(TypeError):
        Product(grouping="spectral")  # type: ignore[call-arg]


@given(st.integers(1, 4), st.integers(1, 8), st.integers(1, 3), st.data())
@settings(max_examples=40)
def test_codes_come_back_from_their_bytes(groups, bits, n, data):
    codec = Product(groups, bits)
    shape = (n, groups, 2, 3)
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=n * groups * 6, max_size=n * groups * 6))
    codes = np.array(codes, np.int32).reshape(shape)
    payload = codec.pack({"codes": codes})
    assert len(payload) == -(-codes.size * bits // 8)
    np.testing.assert_array_equal(codec.unpack(payload, (n, 2 * groups, 2, 3))["codes"], codes)
    with pytest.raises(PayloadError):
        codec.unpack(payload + b"\0", (n, 2 * groups, 2, 3))
