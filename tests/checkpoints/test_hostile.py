"""Hand-made hostile checkpoints: each must be refused without running, importing or allocating what it asks for."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sc_layers.checkpoints import load_network
from sc_layers.checkpoints.errors import CheckpointError, UntrustedCheckpointError
from sc_layers.checkpoints.pickles import torch_files
from tests.checkpoints import samples
from tests.checkpoints.audit import watched
from tests.checkpoints.bypasses import NAMES, WAYS
from tests.checkpoints.hostile import (
    COMMAND,
    Reduces,
    array_of,
    call,
    doubling,
    legacy_torch,
    nested_storage,
    pickled,
    safetensors_of,
    storage_file,
    text,
    zip_of,
)


def _system() -> Reduces:
    import os

    return Reduces(os.system, COMMAND.decode())


def nested_in_tensorflow_state() -> bytes:
    networks = samples.tensorflow_tuple()
    networks[0].static_kwargs["fmap_base"] = _system()
    return pickle.dumps(networks, 4)


def nested_in_persistent_state() -> bytes:
    content = samples.persistence_dict()
    content["G"].meta["state"]["_modules"]["part"].meta["state"]["_init_kwargs"] = {"f": _system()}
    return pickle.dumps(content, 4)


def hook_in_persistent_state() -> bytes:
    content = samples.persistence_dict()
    content["G_ema"].meta["state"]["_forward_hooks"][0] = Reduces(exec, "raise SystemExit")
    return pickle.dumps(content, 4)


def in_rosinality(zipped: bool) -> Callable[[], bytes]:
    def make() -> bytes:
        return samples.saved(samples.rosinality_dict() | {"g_optim": _system()}, zipped)

    return make


def nested_nested_storage() -> bytes:
    return nested_storage(legacy_torch(nested_storage(legacy_torch(pickled(call(b"os", b"system"))))))


# name of what is asked for, and the file that asks for it
ASKING: dict[str, tuple[str, Callable[[], bytes]]] = {
    "os.system": ("os.system", lambda: pickled(call(b"os", b"system"))),
    "posix.system": ("posix.system", lambda: pickled(call(b"posix", b"system"))),
    "nt.system": ("nt.system", lambda: pickled(call(b"nt", b"system"))),
    "eval": ("builtins.eval", lambda: pickled(call(b"builtins", b"eval"))),
    "exec": ("builtins.exec", lambda: pickled(call(b"builtins", b"exec"))),
    "exec of python 2": ("__builtin__.exec", lambda: pickled(call(b"__builtin__", b"exec"))),
    "compile": ("builtins.compile", lambda: pickled(call(b"builtins", b"compile"))),
    "import": ("builtins.__import__", lambda: pickled(call(b"builtins", b"__import__"))),
    "open": ("builtins.open", lambda: pickled(call(b"builtins", b"open"))),
    "subprocess": ("subprocess.Popen", lambda: pickled(call(b"subprocess", b"Popen"))),
    "getattr": (
        "builtins.getattr",
        lambda: pickled(call(b"builtins", b"getattr", b"cnumpy\nndarray\n" + text(b"__subclasses__"))),
    ),
    "attribute chain in a name": (
        "numpy.ndarray.__class__",
        lambda: pickled(text(b"numpy") + text(b"ndarray.__class__") + b"\x93", 4),
    ),
    "name hidden in a module": (
        "sc_layers.checkpoints.os.system",
        lambda: pickled(call(b"sc_layers.checkpoints", b"os.system")),
    ),
    "operator.attrgetter": ("operator.attrgetter", lambda: pickled(call(b"operator", b"attrgetter"))),
    "functools.partial": ("functools.partial", lambda: pickled(call(b"functools", b"partial", b"cos\nsystem\n"))),
    "runpy": ("runpy.run_path", lambda: pickled(call(b"runpy", b"run_path"))),
    "webbrowser": ("webbrowser.open", lambda: pickled(call(b"webbrowser", b"open"))),
    "socket": ("socket.socket", lambda: pickled(b"csocket\nsocket\n)R")),
    "ctypes": ("ctypes.CDLL", lambda: pickled(call(b"ctypes", b"CDLL"))),
    "numpy.load": ("numpy.load", lambda: pickled(call(b"numpy", b"load"))),
    "numpy runstring": (
        "numpy.testing._private.utils.runstring",
        lambda: pickled(call(b"numpy.testing._private.utils", b"runstring")),
    ),
    "torch.load": ("torch.load", lambda: pickled(call(b"torch", b"load"))),
    "torch.hub": ("torch.hub.load", lambda: pickled(call(b"torch.hub", b"load"))),
    "torch.jit": ("torch.jit.load", lambda: pickled(call(b"torch.jit", b"load"))),
    "torch rebuild by name": (
        "torch._tensor._rebuild_from_type_v2",
        lambda: pickled(call(b"torch._tensor", b"_rebuild_from_type_v2", b"cos\nsystem\n")),
    ),
    "copyreg extension": ("copyreg.add_extension", lambda: pickled(call(b"copyreg", b"add_extension"))),
    "EXT1": ("extension registry", lambda: pickled(b"\x82\x01")),
    "EXT2": ("extension registry", lambda: pickled(b"\x83\x01\x00")),
    "EXT4": ("extension registry", lambda: pickled(b"\x84\x01\x00\x00\x00")),
    "INST": ("os.system", lambda: pickled(b"(" + text(COMMAND) + b"ios\nsystem\n")),
    "OBJ": ("os.system", lambda: pickled(b"(cos\nsystem\n" + text(COMMAND) + b"o")),
    "NEWOBJ": ("subprocess.Popen", lambda: pickled(b"csubprocess\nPopen\n" + text(COMMAND) + b"\x85\x81")),
    "NEWOBJ_EX": (
        "subprocess.Popen",
        lambda: pickled(b"csubprocess\nPopen\n" + text(COMMAND) + b"\x85}" + text(b"shell") + b"\x88s\x92", 4),
    ),
    "STACK_GLOBAL": (
        "os.system",
        lambda: pickled(text(b"os") + text(b"system") + b"\x93" + text(COMMAND) + b"\x85R", 4),
    ),
    "behind a memo": ("os.system", lambda: pickled(b"cos\nsystem\nq\x000h\x00" + text(COMMAND) + b"\x85R")),
    "result thrown away": ("os.system", lambda: pickled(call(b"os", b"system") + b"0N")),
    "protocol 0 behind a header": ("os.system", lambda: pickled(b"cos\nsystem\n(S'" + COMMAND + b"'\ntR")),
    "reduce in a TensorFlow network": ("posix.system", nested_in_tensorflow_state),
    "reduce in a persistent object": ("posix.system", nested_in_persistent_state),
    "hook of a persistent object": ("builtins.exec", hook_in_persistent_state),
    "reduce in rosinality": ("posix.system", in_rosinality(True)),
    "reduce in old rosinality": ("posix.system", in_rosinality(False)),
    "inside _load_from_bytes": ("os.system", lambda: nested_storage(legacy_torch(pickled(call(b"os", b"system"))))),
    "inside two _load_from_bytes": ("os.system", nested_nested_storage),
    "a module of ours": (
        "sc_layers.checkpoints.load_network",
        lambda: pickled(call(b"sc_layers.checkpoints", b"load_network")),
    ),
}


@pytest.mark.parametrize("case", ASKING)
def test_what_a_checkpoint_must_not_ask_for_is_named_and_not_run(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, make = ASKING[case]
    data = make()
    with watched() as events, pytest.raises(UntrustedCheckpointError, match=name.replace(".", r"\.")):
        load_network(io.BytesIO(data))
    assert events == []
    assert list(tmp_path.iterdir()) == []


def test_names_in_messages_cannot_steer_a_terminal() -> None:
    with pytest.raises(UntrustedCheckpointError) as error:
        load_network(io.BytesIO(pickled(call(b"os\x1b[2J", b"\x07system"))))
    assert str(error.value).isprintable()


def test_the_watch_sees_what_an_ordinary_unpickler_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with watched() as events:
        pickle.loads(pickled(call(b"os", b"system")))
    assert "os.system" in [event for event, _ in events]
    assert [path.name for path in tmp_path.iterdir()] == ["hostile-was-here"]


def doubled_modules(levels: int) -> bytes:
    module: Any = {"_modules": {}, "_parameters": {}, "_buffers": {}}
    for _ in range(levels):
        part = samples.Persistent("Part", module)
        module = {"_modules": {"a": part, "b": part}, "_parameters": {}, "_buffers": {}}
    state = module | {"_init_args": (), "_init_kwargs": {}}
    return pickle.dumps({"G": samples.Persistent("Net", state)}, 4)


def tensorflow_asking(**arguments: Any) -> bytes:
    networks = samples.tensorflow_tuple()
    networks[0].static_kwargs.update(arguments)
    return pickle.dumps(networks, 4)


def safetensors_asking(**changes: Any) -> bytes:
    state = samples.states()["G_ema"]
    state.config = {**state.config, **changes}
    return samples.write_safetensors({"G_ema": state}, {})


def safetensors_with_meta(depth: int) -> bytes:
    meta: Any = {}
    for _ in range(depth):
        meta = {"a": meta}
    return samples.write_safetensors({"G_ema": samples.states()["G_ema"]}, meta)


LIES = "not a valid safetensors file"
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

# what is said of it, and the file
BROKEN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty file": ("unknown format", lambda: b""),
    "text": ("unknown format", lambda: b"hello"),
    "web page": ("web page", lambda: b"<!DOCTYPE html>"),
    "LFS pointer": ("LFS", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
    "bytes that claim 4 GB": ("not a valid pickle", lambda: pickled(b"B\xff\xff\xff\xffabc", 3)),
    "bytes that claim 2^63": ("not a valid pickle", lambda: pickled(b"\x8e" + b"\xff" * 7 + b"\x7fabc", 4)),
    "text that claims 2^63": ("not a valid pickle", lambda: pickled(b"\x8d" + b"\xff" * 7 + b"\x7fabc", 4)),
    "integer of a million digits": ("not a valid pickle", lambda: pickled(b"I" + b"9" * 1_000_000 + b"\n")),
    "memo number 2^32": ("no known set of networks", lambda: pickled(b"Nr\xff\xff\xff\xff")),
    "memo that was never filled": ("nothing was remembered", lambda: pickled(b"h\x07")),
    "frame beyond the end": ("not a valid pickle|no known set", lambda: pickled(b"\x95" + b"\xff" * 8 + b"N", 4)),
    "no end": ("not a valid pickle", lambda: b"\x80\x02N"),
    "empty stack": ("stack is empty", lambda: pickled(b"")),
    "no mark": ("no mark", lambda: pickled(b"Nt")),
    "a call of a text": ("calls a str", lambda: pickled(text(b"os.system") + b")R")),
    "the state of a text": ("state of a str", lambda: pickled(text(b"a") + b"}b")),
    "the state of a dict": ("state of a dict", lambda: pickled(b"}}b")),
    "buffers outside the file": ("buffers", lambda: pickled(b"\x97", 5)),
    "a persistent id": ("outside of it", lambda: pickled(text(b"x") + b"Q")),
    "a list that holds itself": ("contains itself", lambda: pickled(b"]q\x00h\x00a")),
    "a dict that holds itself": ("contains itself", lambda: pickled(b"}q\x00" + text(b"a") + b"h\x00s")),
    "100,000 lists in each other": ("nested deeper", lambda: pickled(b"]" * 100_000 + b"a" * 99_999)),
    "100,000 tuples in each other": ("nested deeper", lambda: pickled(b")" + b"\x85" * 100_000)),
    "tuples that double 100 times": ("unfolds to more", lambda: pickled(doubling(100, b"\x86"))),
    "lists that double 100 times": ("unfolds to more", lambda: pickled(b"N" + b"q\x000]h\x00ah\x00a" * 100)),
    "tuples that double, as a key": ("key", lambda: pickled(b"}" + doubling(40, b"\x86") + b"Ns")),
    "tuples that double, in a set": ("member of a set", lambda: pickled(b"\x8f(" + doubling(40, b"\x86") + b"\x90", 4)),
    "an integer of 1 MB as a key": (
        "7999999 bits",
        lambda: pickled(b"}\x8b\x40\x42\x0f\x00" + b"\x7f" * 1_000_000 + b"Ns"),
    ),
    "too many tokens": ("tokens", lambda: pickled(b"N0" * 600_000)),
    "text encoded again and again": (
        "unfolds to much more",
        lambda: pickled(
            text(b"a" * 100_000) + b"q\x00" + b"0c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 2000
        ),
    ),
    "an array of 2^60 numbers": ("nobody has an array", lambda: pickled(array_of((2**40, 2**20), b"\0" * 4))),
    "an array of negative size": ("not the shape", lambda: pickled(array_of((-1, -4), b"\0" * 16))),
    "an array of objects": ("only plain numbers", lambda: pickled(array_of((1,), b"\0" * 8, "O8"))),
    "an array of nothing yet": (
        "never filled",
        lambda: pickled(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"),
    ),
    "a dtype with fields": ("only plain numbers", lambda: pickled(b"cnumpy\ndtype\n]\x85R")),
    "a storage that claims more": ("cannot have", lambda: storage_file(2**40, b"\0" * 8, (2,), (1,))),
    "a storage that holds more": ("cannot have", lambda: storage_file(1, b"\0" * 8, (1,), (1,))),
    "a tensor larger than its storage": ("does not fit", lambda: storage_file(2, b"\0" * 8, (2**40,), (1,))),
    "a tensor beyond its storage": ("does not fit", lambda: storage_file(2, b"\0" * 8, (2,), (1,), 1)),
    "a tensor of stride 0": ("does not fit", lambda: storage_file(2, b"\0" * 8, (2**40,), (0,))),
    "a tensor of negative stride": ("not the shape", lambda: storage_file(2, b"\0" * 8, (2,), (-1,))),
    "a zip file without data.pkl": ("no member 'data.pkl'", lambda: zip_of({"other": b"x"})),
    "a compressed zip file": ("compressed", lambda: zip_of({"data.pkl": b"N." * 10_000}, zipfile.ZIP_DEFLATED)),
    "a zip file of nothing": ("not a valid zip", lambda: b"PK\x03\x04" + b"\0" * 60),
    "a big-endian file": ("big-endian", lambda: zip_of({"data.pkl": pickle.dumps({}, 2), "byteorder": b"big"})),
    "_load_from_bytes of garbage": ("not in the format", lambda: nested_storage(b"garbage")),
    "_load_from_bytes of a dict": ("holds a dict", lambda: nested_storage(legacy_torch(pickle.dumps({}, 2)))),
    "_load_from_bytes of one memo, again and again": (
        "unfolds to much more|holds a dict",
        lambda: pickled(
            b"B" + struct.pack("<I", 100_000) + legacy_torch(pickle.dumps({}, 2)).ljust(100_000, b"\0") + b"q\x00"
            b"0" + b"ctorch.storage\n_load_from_bytes\nh\x00\x85R0" * 2000 + b"N",
            3,
        ),
    ),
    "persistent objects that double": ("more than|unfolds to more|nested", lambda: doubled_modules(40)),
    "a persistent object without state": (
        "class name and state",
        lambda: pickled(b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x85R"),
    ),
    "a module list of a billion codes": (
        "more than any network",
        lambda: tensorflow_asking(module_list=["Const-2", "ResConv-up-1", "C_spgroup-1-1000000000"]),
    ),
    "a module list of a billion layers": (
        "too long|more than any network",
        lambda: tensorflow_asking(module_list=["Const-2", "ResConv-id-60000", "ResConv-up-1"]),
    ),
    "a module list of 2^1000 pixels": (
        "more than any network",
        lambda: tensorflow_asking(module_list=["Const-2", "ResConv-up-1000", "C_spgroup-1-2"]),
    ),
    "TensorFlow features of 2^40 channels": (
        "unfolds|no network",
        lambda: tensorflow_asking(fmap_base=2**40, fmap_max=2**40),
    ),
    "TensorFlow argument that is a network": (
        "no plain value",
        lambda: tensorflow_asking(nonlinearity=samples.tensorflow_tuple()[1]),
    ),
    "a tuple of two networks": ("expected 3, 4 or 5", lambda: pickle.dumps(samples.tensorflow_tuple()[:2], 4)),
    "networks in another order": (
        "lies where the",
        lambda: pickle.dumps(samples.tensorflow_tuple()[::-1], 4),
    ),
    "features of 2^20 channels": ("unfolds to much more", lambda: safetensors_asking(fmap_base=2**20, fmap_max=2**20)),
    "features of 2^62 channels": ("unfolds to much more", lambda: safetensors_asking(fmap_base=2**62, fmap_max=2**62)),
    "meta nested 500 times": ("nested deeper", lambda: safetensors_with_meta(500)),
    "an unknown field": ("unknown field", lambda: safetensors_asking(command="rm")),
    "features that do not fit": ("has shape", lambda: safetensors_asking(fmap_base=4, fmap_max=4)),
    "a header of 2^40 bytes": ("unknown format", lambda: (2**40).to_bytes(8, "little") + b"{}"),
    "a header beyond the end": ("claims 1000 bytes", lambda: (1000).to_bytes(8, "little") + b"{}"),
    "a header nested 100,000 times": ("not valid JSON", lambda: safetensors_of(b'{"a":' * 100_000)),
    "a header that is no JSON": ("not valid JSON", lambda: safetensors_of(b"{]")),
    "a tensor beyond the file": (LIES, lambda: safetensors_of({"a": ENTRY})),
    "a tensor of a lying shape": (
        LIES,
        lambda: safetensors_of({"a": ENTRY | {"shape": [2**40]}}, b"\0" * 8),
    ),
    "a tensor of negative size": (
        LIES,
        lambda: safetensors_of({"a": ENTRY | {"shape": [-2]}}, b"\0" * 8),
    ),
    "a tensor of an unknown type": (
        LIES,
        lambda: safetensors_of({"a": ENTRY | {"dtype": "O"}}, b"\0" * 8),
    ),
    "a tensor of nothing, 2^62 wide": (
        LIES,
        lambda: safetensors_of({"a": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}),
    ),
    "a tensor of four bits": (
        LIES,
        lambda: safetensors_of({"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, b"\0" * 2),
    ),
    "tensors that overlap": ("lie over the same bytes", lambda: safetensors_of({"a": ENTRY, "b": ENTRY}, b"\0" * 8)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_or_lying_checkpoint_ends_in_a_clear_error(case: str) -> None:
    message, make = BROKEN[case]
    data = make()
    with watched() as events, pytest.raises(CheckpointError, match=message):
        load_network(io.BytesIO(data), impl="reference")
    assert events == []


def test_embedded_source_is_not_looked_at() -> None:
    with watched() as events:
        networks = load_network(io.BytesIO(pickle.dumps(samples.persistence_dict(), 4)))
    assert events == []
    assert networks["G"].class_name == "Net"


def test_storages_inside_a_pickle_are_read_by_our_own_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(samples.persistence_dict(), 4)
    assert b"_load_from_bytes" in data
    read: list[bytes] = []
    ours = torch_files.read_storage
    monkeypatch.setattr(torch.storage, "_load_from_bytes", lambda raw: pytest.fail("torch's own reader was called"))
    monkeypatch.setattr(torch_files, "read_storage", lambda raw, budget: read.append(raw) or ours(raw, budget))
    load_network(io.BytesIO(data))
    assert read


@pytest.mark.parametrize("name", samples.all_formats())
def test_a_truncated_file_of_any_format_ends_in_a_clear_error(name: str) -> None:
    data = samples.all_formats()[name]
    for end in range(0, len(data) - 1, max(1, len(data) // 40)):
        with pytest.raises(CheckpointError):
            load_network(io.BytesIO(data[:end]), impl="reference")


@pytest.mark.parametrize("way", WAYS)
def test_no_published_bypass_of_a_scanner_runs_anything(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for module, name in NAMES:
        data = WAYS[way](module, name)
        with watched() as events, pytest.raises(CheckpointError):
            load_network(io.BytesIO(data), impl="reference")
        assert events == [], (module, name)
    assert list(tmp_path.iterdir()) == []
