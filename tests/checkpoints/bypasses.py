"""Names by which published payloads got past scanners of pickles, and ways of hiding them.

The names are those of the test data and block lists of picklescan (f15d54d) and fickling (854c99a), as far as they
stand for code; where these name a whole module, `run` stands for whatever is in it. The payloads are ours.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable

from tests.checkpoints import samples
from tests.checkpoints.hostile import call, legacy_torch, nested_storage, pickled, text, zip_of

_BY_MODULE = {
    "__builtin__": "apply breakpoint compile eval exec getattr globals open run",
    "__builtins__": "run",
    "_aix_support": "_read_cmd_output run",
    "_ctypes": "run",
    "_frozen_importlib": "run",
    "_frozen_importlib_external": "run",
    "_imp": "run",
    "_interpreters": "run",
    "_io": "FileIO open",
    "_operator": "attrgetter itemgetter methodcaller run",
    "_osx_support": "_read_output run",
    "_pickle": "loads run",
    "_posixsubprocess": "run",
    "_pyrepl": "run",
    "_pyrepl.pager": "pipe_pager",
    "_signal": "run",
    "_sqlite3": "run",
    "_thread": "run",
    "_xxsubinterpreters": "run",
    "aiohttp": "run",
    "aiohttp.client": "ClientSession",
    "asyncio": "run",
    "asyncio.unix_events": "_UnixSubprocessTransport._start",
    "atexit": "run",
    "bdb": "Bdb Bdb.run run",
    "builtins": "__import__ apply breakpoint compile eval exec getattr len open run",
    "cProfile": "run runctx",
    "cloudpickle": "run",
    "cloudpickle.cloudpickle": "_builtin_type _function_setstate _make_cell _make_empty_cell _make_function subimport",
    "code": "InteractiveInterpreter.runcode run",
    "codeop": "run",
    "commands": "run",
    "compile": "run",
    "compileall": "run",
    "ctypes": "CDLL run",
    "difflib": "run",
    "dill": "run",
    "distutils": "run",
    "distutils.file_util": "run write_file",
    "doctest": "debug_script run",
    "ensurepip": "_run_pip run",
    "eval": "run",
    "exec": "run",
    "filecmp": "run",
    "fileinput": "run",
    "ftplib": "run",
    "functools": "partial run",
    "gc": "run",
    "glob": "run",
    "http": "run",
    "httplib": "HTTPSConnection run",
    "idlelib": "run",
    "idlelib.autocomplete": "AutoComplete.fetch_completions AutoComplete.get_entity",
    "idlelib.calltip": "Calltip.fetch_tip get_entity",
    "idlelib.debugobj": "ObjectTreeItem.SetText",
    "idlelib.pyshell": "ModifiedInterpreter.runcode ModifiedInterpreter.runcommand",
    "idlelib.run": "Executive.runcode",
    "imaplib": "IMAP4_stream run",
    "imp": "run",
    "importlib": "run",
    "inspect": "run",
    "io": "FileIO open",
    "joblib": "run",
    "lib2to3": "run",
    "lib2to3.pgen2.grammar": "Grammar.loads",
    "lib2to3.pgen2.pgen": "ParserGenerator.make_label",
    "linecache": "run",
    "logging": "FileHandler run",
    "marshal": "run",
    "mmap": "run",
    "multiprocessing": "run",
    "nntplib": "run",
    "nt": "run",
    "numpy.distutils": "run",
    "numpy.f2py": "run",
    "numpy.f2py.crackfortran": "getlincoef",
    "numpy.testing._private.utils": "run runstring",
    "operator": "attrgetter itemgetter methodcaller run",
    "os": "os run system",
    "pdb": "run",
    "pexpect": "run",
    "pickle": "loads run",
    "pip": "main run",
    "pipes": "run",
    "pkgutil": "resolve_name run",
    "platform": "run",
    "poplib": "run",
    "posix": "run system",
    "profile": "Profile.run Profile.runctx run",
    "pty": "run spawn",
    "py_compile": "run",
    "pydoc": "locate pipepager run",
    "requests": "run",
    "requests.api": "get run",
    "runpy": "_run_code run",
    "select": "run",
    "selectors": "run",
    "shelve": "run",
    "shutil": "run",
    "signal": "run",
    "site": "run",
    "smtplib": "run",
    "socket": "create_connection run",
    "socketserver": "run",
    "sqlite3": "run",
    "ssl": "run",
    "subprocess": "run",
    "sys": "exit run",
    "syslog": "run",
    "tarfile": "run",
    "telnetlib": "run",
    "tempfile": "run",
    "test": "run",
    "test.support.script_helper": "assert_python_ok",
    "threading": "run",
    "timeit": "run timeit",
    "torch": "_utils compile load",
    "torch._dynamo": "run",
    "torch._dynamo.guards": "GuardBuilder.get",
    "torch._inductor": "run",
    "torch._inductor.codecache": "compile_file",
    "torch.compile": "run",
    "torch.distributed.elastic.rendezvous.api": "basichandlers",
    "torch.fx.experimental.symbolic_shapes": "ShapeEnv.evaluate_guards_expression",
    "torch.hub": "run",
    "torch.jit": "run",
    "torch.jit.unsupported_tensor_ops": "execWrapper",
    "torch.serialization": "load",
    "torch.utils._config_module": "ConfigModule ConfigModule.load_config",
    "torch.utils.bottleneck.__main__": "run_autograd_prof run_cprofile",
    "torch.utils.collect_env": "run run_and_read_all",
    "torch.utils.data.datapipes.utils.decoder": "basichandlers",
    "trace": "Trace.run Trace.runctx run",
    "types": "CodeType run",
    "unittest": "run",
    "urllib": "run",
    "urllib.request": "run urlopen",
    "urllib2": "run",
    "uuid": "_get_command_stdout run",
    "venv": "create run",
    "webbrowser": "run",
    "xmlrpc": "run",
    "zipfile": "run",
    "zipimport": "run",
}
NAMES = [(module, name) for module, names in _BY_MODULE.items() for name in names.split()]
_ARGUMENT = text(b"touch hostile-was-here")


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def _called(function: bytes) -> bytes:
    return function + _ARGUMENT + b"\x85R"


def in_a_frame(module: str, name: str) -> bytes:
    """A frame ends in the middle of the name."""
    body = _short(module) + _short(name) + b"\x93" + _ARGUMENT + b"\x85R."
    return b"\x80\x04\x95" + struct.pack("<Q", 3) + body


def beside_a_zip(module: str, name: str) -> bytes:
    """A pickle with an archive behind it, which readers of archives find from the end."""
    return pickled(call(module.encode(), name.encode())) + zip_of({"data.pkl": pickle.dumps({}, 2)})


def behind_a_harmless_member(module: str, name: str) -> bytes:
    """Two members of one name: readers differ in which of them they take."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/other.pkl", pickled(call(module.encode(), name.encode())))
    return buffer.getvalue().replace(b"archive/other.pkl", b"archive/data.pkl\0")


def in_a_damaged_zip(module: str, name: str) -> bytes:
    """A wrong checksum, at which Python's own library gives up and PyTorch's does not."""
    data = bytearray(zip_of({"data.pkl": pickled(call(module.encode(), name.encode()))}))
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 16 : entry + 20] = b"\1\2\3\4"
    return bytes(data)


def in_a_tar(module: str, name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        content = pickled(call(module.encode(), name.encode()))
        member = tarfile.TarInfo("pickle")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def among_networks(module: str, name: str) -> bytes:
    """Something that passes for a network carries it, thrown away before anybody looks."""
    body = pickle.dumps(samples.persistence_dict(), 2)
    return body[:2] + call(module.encode(), name.encode()) + b"0" + body[2:]


WAYS: dict[str, Callable[[str, str], bytes]] = {
    "GLOBAL": lambda module, name: pickled(call(module.encode(), name.encode())),
    "GLOBAL of protocol 0": lambda module, name: b"\x80\x00" + _global(module, name) + b"(S'id'\ntR.",
    "STACK_GLOBAL": lambda module, name: pickled(_called(_short(module) + _short(name) + b"\x93"), 4),
    "STACK_GLOBAL of remembered texts": lambda module, name: pickled(
        _called(_short(module) + b"\x940" + _short(name) + b"\x940h\x00h\x01\x93"), 4
    ),
    "INST": lambda module, name: pickled(b"(" + _ARGUMENT + f"i{module}\n{name}\n".encode()),
    "OBJ, thrown away": lambda module, name: pickled(b"(" + _global(module, name) + _ARGUMENT + b"o0N"),
    "NEWOBJ": lambda module, name: pickled(_global(module, name) + _ARGUMENT + b"\x85\x81"),
    "never called": lambda module, name: pickled(_global(module, name)),
    "as a key": lambda module, name: pickled(b"}" + _global(module, name) + b"Ns"),
    "dotted, of a harmless module": lambda module, name: pickled(
        _called(_short("collections") + _short(f"{module}.{name}"[:255]) + b"\x93"), 4
    ),
    "in a frame that is too short": in_a_frame,
    "in a zip file": lambda module, name: zip_of({"data.pkl": pickled(call(module.encode(), name.encode()))}),
    "in a zip file with a wrong checksum": in_a_damaged_zip,
    "behind a member of the same name": behind_a_harmless_member,
    "in front of a zip file": beside_a_zip,
    "in a tar file": in_a_tar,
    "in an older torch file": lambda module, name: legacy_torch(pickled(call(module.encode(), name.encode()))),
    "in a storage": lambda module, name: nested_storage(legacy_torch(pickled(call(module.encode(), name.encode())))),
    "among networks": among_networks,
}
