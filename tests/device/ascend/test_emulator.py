"""The ACL emulator is as strict as it says: each misuse gives its code, and what is not freed is seen."""

import json
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.device.ascend.emulator import Emulator


@pytest.fixture
def emulator():
    return Emulator(on_host=True)


@pytest.fixture
def acl(emulator):
    """pyACL on a device, in a context."""
    acl = emulator.module()
    assert acl.init() == 0 and acl.rt.set_device(0) == 0
    acl.context, code = acl.rt.create_context(0)
    assert code == 0
    return acl


@pytest.fixture
def om(tmp_path):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, [2, 3])], [value("y", TensorProto.FLOAT, [2, 3])],
    )  # fmt: skip
    onnx = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7).SerializeToString()
    head = {"soc_version": "Ascend310", "inputs": {"x": [2, 3]}, "types": {}}
    path = tmp_path / "a.om"
    path.write_bytes(b"emulated om\n" + json.dumps(head).encode() + b"\n" + onnx)
    return str(path)


def test_order_of_init_and_finalize():
    acl = Emulator().module()
    assert acl.rt.set_device(0) == 100001 and acl.finalize() == 100001
    assert acl.rt.malloc(8, 0) == (0, 100001) and acl.mdl.create_desc() is None
    assert acl.init() == 0 and acl.init() == 100002
    assert acl.finalize() == 0 and acl.finalize() == 100037
    assert acl.init() == 100002


def test_memory(acl, emulator):
    assert acl.rt.malloc(0, 0) == (0, 100000) and acl.rt.malloc(8, 7) == (0, 100000)
    device, _ = acl.rt.malloc(8, 0)
    host, _ = acl.rt.malloc_host(8)
    assert emulator.left()["device memory"] == 1
    content = b"12345678"
    pointer = acl.util.bytes_to_ptr(content)
    assert acl.rt.memcpy(device, 8, pointer, 8, 1) == 0
    assert acl.rt.memcpy(device, 8, pointer, 8, 1) == 200005
    assert acl.rt.memcpy(host, 8, device, 8, 2) == 0
    assert acl.util.ptr_to_bytes(host, 8) == content
    assert acl.util.ptr_to_bytes(host, 9) is None and acl.util.ptr_to_bytes(device, 8) is None
    assert acl.util.ptr_to_numpy(host, (8,), 2).tobytes() == content
    assert acl.rt.memcpy(host, 8, device, 8, 1) == 100000  # the other direction
    assert acl.rt.memcpy(host, 9, device, 8, 2) == 100000  # more room than there is
    assert acl.rt.memcpy(host, 8, device, 9, 2) == 100000
    assert acl.rt.free(host) == 200005 and acl.rt.free_host(device) == 200005
    assert acl.rt.free(device) == 0 and acl.rt.free(device) == 200005
    assert acl.rt.memcpy(host, 8, device, 8, 2) == 200005
    assert acl.rt.free_host(host) == 0


def test_python_memory_that_nobody_holds(acl):
    device, _ = acl.rt.malloc(4, 0)
    pointer = acl.util.bytes_to_ptr(bytes(bytearray(4)))
    assert acl.rt.memcpy(device, 4, pointer, 4, 1) == 200005
    pointer = acl.util.numpy_to_ptr(np.zeros(1, np.float32))
    assert acl.rt.memcpy(device, 4, pointer, 4, 1) == 200005
    assert acl.util.numpy_to_ptr(np.zeros((2, 3)).T) == 0


def test_contexts_belong_to_threads(acl, emulator):
    seen = []

    def other():
        seen.append(acl.rt.malloc(8, 0))
        seen.append(acl.rt.set_context(acl.context))
        seen.append(acl.rt.malloc(8, 0)[1])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [(0, 107002), 0, 0]
    assert acl.rt.destroy_context(acl.context) == 200004  # memory is left
    assert acl.rt.set_context(12345) == 200005
    assert acl.rt.set_device(1) == 107001 and acl.rt.create_context(1) == (0, 107001)


def test_models(acl, om, tmp_path):
    assert acl.mdl.execute(1, 2, 3) == 100011
    assert acl.mdl.load_from_file("nowhere") == (0, 145002)
    (tmp_path / "b.om").write_bytes(b"other")
    assert acl.mdl.load_from_file(str(tmp_path / "b.om")) == (0, 100012)
    model, _ = acl.mdl.load_from_file(om)
    desc = acl.mdl.create_desc()
    assert acl.mdl.get_num_inputs(desc) is None
    assert acl.mdl.get_desc(desc, 99) == 100011 and acl.mdl.get_desc(desc, model) == 0
    assert acl.mdl.get_num_inputs(desc) == acl.mdl.get_num_outputs(desc) == 1
    assert acl.mdl.get_input_index_by_name(desc, "x") == (0, 0)
    assert acl.mdl.get_input_index_by_name(desc, "z") == (0, 100000)
    assert acl.mdl.get_input_size_by_index(desc, 0) == 24 and acl.mdl.get_output_size_by_index(desc, 0) == 32
    assert acl.mdl.get_input_dims(desc, 0)[0]["dims"] == [2, 3]
    buffers, sets = [], []
    for size in (24, 32, 16):
        pointer, _ = acl.rt.malloc(size, 0)
        assert acl.create_data_buffer(pointer, size + 1) is None
        buffers.append(acl.create_data_buffer(pointer, size))
        sets.append(acl.mdl.create_dataset())
        assert acl.mdl.add_dataset_buffer(sets[-1], buffers[-1]) == (sets[-1], 0)
    assert acl.mdl.execute(model, sets[2], sets[1]) == 100017
    assert acl.mdl.execute(model, sets[0], sets[2]) == 100018
    assert acl.mdl.execute(model, sets[0], sets[1]) == 0
    assert acl.mdl.execute(model, sets[0], 5) == 200005
    assert acl.destroy_data_buffer(buffers[0]) == 0 and acl.destroy_data_buffer(buffers[0]) == 200005
    assert acl.mdl.execute(model, sets[0], sets[1]) == 200005
    assert acl.mdl.unload(model) == 0 and acl.mdl.unload(model) == 100011
    assert acl.mdl.execute(model, sets[0], sets[1]) == 100011


def test_a_chip_takes_its_own_models_alone(om):
    acl = Emulator(chip="Ascend310B4").module()
    assert acl.init() == 0 and acl.rt.set_device(0) == 0
    acl.rt.create_context(0)
    assert acl.mdl.load_from_file(om) == (0, 500002)


def test_what_is_left_is_seen(acl, emulator):
    acl.mdl.create_dataset()
    assert acl.finalize() == 500001
    assert emulator.left() == {"context": 1, "dataset": 1, "device": 1}


def test_old_pyacl_has_no_bytes():
    util = Emulator(bytes_api=False).module().util
    assert not hasattr(util, "bytes_to_ptr") and not hasattr(util, "ptr_to_bytes") and hasattr(util, "numpy_to_ptr")
