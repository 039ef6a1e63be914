"""PyTorch's files are read without PyTorch, and nothing in them is executed."""

import os
import pickle
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.types import DataDamagedError
from experiments.weights import read_weights
from tests import pth_files as pth

ARRAYS = {
    "features.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "features.0.bias": np.array([1.5, -2.5], np.float64),
    "half": np.array([[0.5, 2.0]], np.float16),
    "brain": np.array([1.0, 3.0], jnp.bfloat16),
    "count": np.array(7, np.int64),
}
FLOATS = np.arange(12, dtype=np.float32)


class Harmful:
    """A pickle of it calls os.system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def save_one(path: Path, code: bytes, array: np.ndarray = FLOATS) -> Path:
    """A state dict {"a": …} whose storage 0 is `array`."""
    return pth.write_zip(path, pth.state_dict({"a": code}), {"0": array.tobytes()})


@pytest.mark.parametrize("legacy", [False, True])
def test_both_formats_give_the_arrays_back(tmp_path, legacy):
    arrays = read_weights(pth.save(tmp_path / "weights.pth", ARRAYS, legacy=legacy))
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_tensors_share_a_storage_and_may_be_transposed(tmp_path):
    stored = pth.storage("0", "float32", 12)
    entries = {
        "rows": pth.tensor(stored, (2, 3), (3, 1), 6),
        "turned": pth.tensor(stored, (4, 3), (1, 4)),
    }
    path = pth.write_zip(tmp_path / "a.pt", pth.state_dict(entries), {"0": FLOATS.tobytes()})
    arrays = read_weights(path)
    np.testing.assert_array_equal(arrays["rows"], FLOATS[6:].reshape(2, 3))
    np.testing.assert_array_equal(arrays["turned"], FLOATS.reshape(3, 4).T)


def test_a_state_dict_may_be_an_entry_of_a_checkpoint(tmp_path):
    inner = pth.state_dict({"a": pth.whole(FLOATS, "0")})
    code = pth.state_dict({"epoch": pth.value(3), "state_dict": inner})
    path = pth.write_zip(tmp_path / "a.bin", code, {"0": FLOATS.tobytes()})
    np.testing.assert_array_equal(read_weights(path)["a"], FLOATS)


def parameters() -> dict[str, bytes]:
    """A tensor in a Parameter, as PyTorch wrote it at different times."""
    stored = pth.storage("0", "float32", 12, module="torch.cuda")
    place = pth.value(0), pth.value((12,)), pth.value((1,))
    tensor = pth.called("torch._utils._rebuild_tensor", stored, *place)
    flags = pth.value((True, False, None))
    five = b"(" + tensor + pth.value(None) + pth.value({}) + pth.value(True) + pth.value(False)
    return {
        "since 0.4": pth.called("torch._utils._rebuild_parameter", tensor, pth.value(True)),
        "0.1.12": pth.called("torch.nn.parameter.Parameter", tensor) + flags + b"b",
        "0.1.0": b"ctorch.nn.parameter\nParameter\n)\x81" + five + b"tb",
    }


@pytest.mark.parametrize("version", parameters())
def test_parameters_of_old_versions_are_tensors(tmp_path, version):
    code = pth.state_dict({"a": parameters()[version]})
    path = pth.write_legacy(tmp_path / "a.pth", code, {"0": (12, FLOATS.tobytes())})
    np.testing.assert_array_equal(read_weights(path)["a"], FLOATS)


@pytest.mark.parametrize("legacy", [False, True])
def test_harmful_pickles_are_not_executed(tmp_path, legacy):
    trace = tmp_path / "executed"
    code = pickle.dumps(Harmful(trace), 2)[2:-1]
    path = tmp_path / "weights.pth"
    if legacy:
        pth.write_legacy(path, code, {})
    else:
        pth.write_zip(path, code, {})
    with pytest.raises(DataDamagedError, match=r"asks for (posix|nt)\.system.*nothing of it was"):
        read_weights(path)
    assert not trace.exists()
    # The same opcodes do harm where nobody looks.
    pickle.loads(b"\x80\x02" + code + b".")
    assert trace.exists()


def test_harm_before_the_pickle_of_a_legacy_file_is_not_done_either(tmp_path):
    trace = tmp_path / "executed"
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Harmful(trace), 2))
    with pytest.raises(DataDamagedError, match="nothing of it was executed"):
        read_weights(tmp_path / "weights.pth")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins.eval", "torch.load", "collections.Counter", "torch.nn.modules.conv.Conv2d"],
)
def test_only_what_state_dicts_need_may_be_named(tmp_path, name):
    path = save_one(tmp_path / "a.pth", pth.called(name, pth.value("1")))
    with pytest.raises(DataDamagedError, match=f"asks for {name}, which weights have no need"):
        read_weights(path)


def test_a_file_cannot_change_how_the_next_is_read(tmp_path):
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    spoiled = function + pth.value((None, {"__defaults__": (1, 2, 3, 4, 5, 6)})) + b"b"
    with pytest.raises(DataDamagedError, match="no tensor"):
        read_weights(save_one(tmp_path / "bad.pth", spoiled))
    # A tensor without its shape, which those defaults would have given it.
    code = pth.called("torch._utils._rebuild_tensor_v2", pth.storage("0", "float32", 12))
    with pytest.raises(DataDamagedError, match="missing 3 required positional arguments"):
        read_weights(save_one(tmp_path / "next.pth", code))


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((13,), (1,), 0),
        ((12,), (1,), 1),
        ((3, 4), (5, 1), 0),
        ((1 << 40,), (0,), 0),
        ((2,), (-1,), 5),
        ((2,), (1,), -1),
    ],
)
def test_tensors_stay_within_their_storage(tmp_path, shape, strides, offset):
    code = pth.tensor(pth.storage("0", "float32", 12), shape, strides, offset)
    with pytest.raises(DataDamagedError, match=r"its entry 'a' .* reaches beyond the numbers"):
        read_weights(save_one(tmp_path / "a.pth", code))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.99])
def test_a_file_that_is_cut_off_is_damaged(tmp_path, legacy, share):
    path = pth.save(tmp_path / "weights.pth", ARRAYS, legacy=legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataDamagedError, match=r"weights\.pth cannot be read"):
        read_weights(path)


def test_a_zip_with_a_storage_of_another_size_is_damaged(tmp_path):
    path = save_one(tmp_path / "a.pth", pth.whole(FLOATS, "0"), FLOATS[:5])
    with pytest.raises(DataDamagedError, match="archive/data/0 is not 48 bytes long"):
        read_weights(path)


def test_a_legacy_storage_of_another_size_is_damaged(tmp_path):
    code = pth.state_dict({"a": pth.whole(FLOATS, "0")})
    path = pth.write_legacy(tmp_path / "a.pth", code, {"0": (11, FLOATS.tobytes())})
    with pytest.raises(DataDamagedError, match="storage 0 has 11 numbers, wanted 12"):
        read_weights(path)


def test_big_endian_numbers_are_refused(tmp_path):
    code, content = pth.state_dict({"a": pth.whole(FLOATS, "0")}), FLOATS.tobytes()
    new = pth.write_zip(tmp_path / "new.pth", code, {"0": content}, byteorder=b"big")
    system = {**pth.SYSTEM, "little_endian": False}
    old = pth.write_legacy(tmp_path / "old.pth", code, {"0": (12, content)}, system)
    for path in (new, old):
        with pytest.raises(DataDamagedError, match="big-endian"):
            read_weights(path)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (pth.value([1, 2]), "wanted a state dict, got list"),
        (pth.state_dict({"a": pth.value("b")}), "its entry 'a' is no tensor but str"),
        (pth.storage("0", "float32", 12), "wanted a state dict"),
        (b"(" + pth.value("module") + pth.value("x") * 4 + b"tQ", "no plain storage"),
    ],
)
def test_what_is_no_state_dict_is_named(tmp_path, code, text):
    with pytest.raises(DataDamagedError, match=text):
        read_weights(pth.write_zip(tmp_path / "a.pth", code, {"0": FLOATS.tobytes()}))


def test_other_files_are_no_state_dicts(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(1) * 3)
    with pytest.raises(DataDamagedError, match="begins like no format of PyTorch's"):
        read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", b"")
    with pytest.raises(DataDamagedError, match=r"wanted one data\.pkl in the zip, got 0"):
        read_weights(path)
