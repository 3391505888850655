"""Encoders: the graph's quantise stage against the codec's numpy reference."""

import functools

import numpy as np
import onnx
import onnxruntime
import pytest

from edgekit.codecs.registry import FEATURES, feature_codec
from edgekit.export.encoders.registry import ENCODERS
from edgekit.export.graph import Graph, Versions
from edgekit.tensors import TensorSpec, check_all

CODECS = [feature_codec(codec_id, {}) for codec_id in FEATURES] + [
    feature_codec("uniform", {"bits": 2}),
    feature_codec("uniform", {"bits": 8}),
    feature_codec("sgq", {"groups": 1, "bits": 2}),
    feature_codec("sgq", {"groups": 4, "bits": 8}),
    feature_codec("sgq", {"groups": 32, "bits": 3}),
    feature_codec("sgq", {"grouping": "contiguous"}),
    feature_codec("sgq", {"grouping": "significance", "weighted": True}),
    feature_codec("product", {"groups": 4, "bits": 8}),
    feature_codec("slicing", {"bits": 8}),
]
each_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)
FEATURE = TensorSpec("feature", "float32", (-1, 32, 4, 6))


def feature(seed, n=64):
    """After a ReLU, channels of different strength."""
    rng = np.random.default_rng(seed)
    strength = np.linspace(0.2, 3, 32, dtype=np.float32)[:, None, None]
    return np.maximum(rng.normal(size=(n, 32, 4, 6)).astype(np.float32) * strength, 0)


def calibrated(codec, seed=0):
    """Tables; the channels matter in no order of theirs, some a hundred times as much as others."""
    return {name: array.copy() for name, array in calibrated_once(codec, seed).items()}


@functools.cache
def calibrated_once(codec, seed):
    """Most of the time here is k-means, whose result many tests take."""
    significance = np.exp(np.random.default_rng(9).uniform(0, 4.6, 32)).astype(np.float32)
    return codec.calibrate(feature(seed), seed=seed, significance=significance)


def scoring(codec, tables):
    """The tables of the quantise stage; the order of channels is not its own."""
    return {name: array for name, array in codec.table_feeds(tables).items() if not name.startswith("codebook_order")}


class Encoder:
    """A graph that is the quantise stage of `codec` and nothing else, in ONNX Runtime."""

    def __init__(self, codec, tables, scores="conv"):
        graph = Graph(Versions(opset=11, ir_version=7))
        name = graph.input(FEATURE)
        ENCODERS[codec.codec_id].encode(graph, name, codec, tables, scores)
        self.codes = codec.code_specs(FEATURE)
        held = list(scoring(codec, tables))
        self.model, self.spec = graph.model(
            [spec.name for spec in self.codes],
            held=held,
            file="encoder.onnx",
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def __call__(self, z, feeds):
        names = [spec.name for spec in self.codes]
        return dict(zip(names, self._session.run(names, {"feature": z, **feeds}), strict=True))


def test_every_feature_codec_has_an_encoder():
    assert set(ENCODERS) == set(FEATURES)


@each_codec
def test_the_graph_declares_what_the_codec_says(codec):
    tables = calibrated(codec)
    encoder = Encoder(codec, tables)
    assert encoder.spec.outputs == tuple(codec.code_specs(FEATURE))
    assert encoder.spec.inputs == (FEATURE,) and encoder.spec.constants == ()
    feeds = scoring(codec, tables)
    check_all(encoder.spec.held, feeds, "held")
    model = onnx.load_from_string(encoder.model)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 11)] and model.ir_version == 7


@each_codec
@pytest.mark.parametrize("scores", ["conv", "matmul"])
@pytest.mark.parametrize("n", [1, 64])
def test_codes_equal_the_reference(codec, n, scores):
    tables = calibrated(codec)
    z = np.ascontiguousarray(feature(1, n)[:, codec.order(32, tables)])
    got, expected = Encoder(codec, tables, scores)(z, scoring(codec, tables)), codec.quantize(z, tables)
    check_all(codec.code_specs(FEATURE), got, repr(codec))
    for name, codes in expected.items():
        assert (got[name] == codes).mean() >= 0.999, name
    again = codec.unpack(codec.pack(got), z.shape)
    assert (again["codes"] == got["codes"]).all() or codec.codec_id == "topk"  # which sends a part of them
    np.testing.assert_array_equal(codec.dequantize(again, tables), codec.dequantize(got, tables))


@each_codec
def test_new_tables_need_no_new_graph(codec):
    first, second = (calibrated(codec, seed) for seed in (0, 2))
    z = feature(1)
    encoder = Encoder(codec, first)
    got, expected = encoder(z, scoring(codec, second)), codec.quantize(z, second)
    assert (got["codes"] == expected["codes"]).mean() >= 0.999


@each_codec
@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_a_constant_feature_codes_as_in_the_reference(codec, value):
    tables = calibrated(codec)
    z = np.full((2, 32, 4, 6), value, np.float32)
    got, expected = Encoder(codec, tables)(z, scoring(codec, tables)), codec.quantize(z, tables)
    for name, codes in expected.items():
        np.testing.assert_array_equal(got[name], codes)


@each_codec
def test_largest_bounds_what_the_stage_computes(codec):
    tables = calibrated(codec)
    z = np.ascontiguousarray(feature(1)[:, codec.order(32, tables)])
    largest = ENCODERS[codec.codec_id].largest(codec, z, tables)
    if "codebook" in tables:
        books = codec.books(tables["codebook"])
        scores = [
            (book**2).sum(axis=1) / 2 - points @ book.T for points, book in zip(codec.stripes(z), books, strict=True)
        ]
        assert max(abs(score).max() for score in scores) <= largest
    else:
        assert largest >= abs(z).max()
