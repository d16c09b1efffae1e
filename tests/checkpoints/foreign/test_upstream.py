"""The programs whose files we read and write, where the environment says where their checkouts are.

STYLEGAN2_ADA_DIR, STYLEGAN3_DIR and ROSINALITY_DIR name them. Each runs in a process of its own: they share names of
modules.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import samples

ROOT = Path(__file__).parents[2]
PREPARE = """
import copy, os, pickle, sys, types
sys.path[:0] = [sys.argv[1], sys.argv[2]]
if "pkg_resources" not in sys.modules:  # stylegan3 asks it for one function, and new setuptools have it no more
    import packaging.version
    sys.modules["pkg_resources"] = types.SimpleNamespace(parse_version=packaging.version.parse)
import torch
import sc_layers
torch.manual_seed(0)
"""
NETWORKS = {
    "STYLEGAN2_ADA_DIR": """
from training import networks as classes
G = classes.Generator(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, img_channels=3, mapping_kwargs={"num_layers": 2},
                      synthesis_kwargs={"channel_base": 512, "channel_max": 16})
D = classes.Discriminator(c_dim=0, img_resolution=32, img_channels=3, channel_base=512, channel_max=16)
""",
    "STYLEGAN3_DIR": """
from training import networks_stylegan2, networks_stylegan3
classes = [networks_stylegan3, networks_stylegan2]
G = networks_stylegan3.Generator(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, img_channels=3,
                                 mapping_kwargs={"num_layers": 2}, channel_base=512, channel_max=16, num_layers=4,
                                 first_cutoff=2, first_stopband=4)
D = networks_stylegan2.Discriminator(c_dim=0, img_resolution=32, img_channels=3, channel_base=512, channel_max=16)
""",
}
SAVE = """
G, D = (net.eval().requires_grad_(False) for net in (G, D))
with open("net.pkl", "wb") as file:
    pickle.dump(dict(G=G, D=D, G_ema=copy.deepcopy(G), training_set_kwargs={}, augment_pipe=None), file)
z = torch.randn(2, G.z_dim)
images = G(z, None, noise_mode="const")
"""
ROUND_TRIP = """
records = sc_layers.load_network("net.pkl")
assert records["G"].class_name == "Generator" and records["G"].kwargs["z_dim"] == 16
networks = sc_layers.load_network("net.pkl", classes=classes)
assert torch.equal(networks["G_ema"](z, None, noise_mode="const"), images)
assert torch.equal(networks["D"](images, None), D(images, None))
"""
OPENS_OURS = """
import legacy
with open("ours.pkl", "rb") as file:
    networks = legacy.load_network_pkl(file)
G = networks["G_ema"]
assert type(G).__module__.startswith("sc_layers.")
image = G(torch.randn(1, G.z_dim), torch.zeros(1, G.c_dim), truncation_psi=0.5, noise_mode="const")
assert image.shape == (1, 1, 8, 8)
"""
GENERATE = """
source = open(sys.argv[1] + "/generate.py", encoding="utf-8-sig").read().replace("'cuda'", "'cpu'")
sys.argv = ["generate.py", "--network=rgb.pkl", "--seeds=0-1", "--trunc=0.7", "--outdir=out"]
try:
    exec(compile(source, "generate.py", "exec"), {"__name__": "__main__"})
except SystemExit as end:
    assert not end.code, end.code
assert sorted(os.listdir("out")) == ["seed0000.png", "seed0001.png"]
"""
STYLEGAN2 = """
import legacy
from training import networks as classes
with open("stylegan2.pkl", "rb") as file:
    theirs = legacy.load_network_pkl(file)
ours = sc_layers.load_network("stylegan2.pkl", classes=classes)
z = torch.randn(4, 4)
images = theirs["G_ema"](z, None, noise_mode="const")
assert torch.equal(ours["G_ema"](z, None, noise_mode="const"), images)
theirs["D"].b4.mbstd.group_size = 4  # the default in the program that wrote the file; theirs takes the whole batch
assert torch.equal(ours["D"](images, None), theirs["D"](images, None))
"""
ROSINALITY = """
import argparse
import torch.utils.cpp_extension
torch.utils.cpp_extension.load = lambda *args, **kwargs: None  # its operators are compiled at import, for CUDA
import model
import swagan
G, D = swagan.Generator(64, 16, 2, channel_multiplier=1), swagan.Discriminator(64, channel_multiplier=1)
torch.save({"g": G.state_dict(), "d": D.state_dict(), "g_ema": G.state_dict()}, "swagan.pt")
networks = sc_layers.load_network("swagan.pt", classes=swagan)
assert networks["G"].size == G.size and networks["D"].state_dict().keys() == D.state_dict().keys()
G, D = model.Generator(8, 16, 2), model.Discriminator(8)
optimizer = torch.optim.Adam(G.style.parameters())
args = argparse.Namespace(size=8, latent=16, n_mlp=2, channel_multiplier=2)
for zipped in (True, False):
    content = {"g": G.state_dict(), "d": D.state_dict(), "g_ema": G.state_dict(), "args": args,
               "g_optim": optimizer.state_dict(), "d_optim": optimizer.state_dict(), "ada_aug_p": 0.0}
    torch.save(content, "net.pt", _use_new_zipfile_serialization=zipped)
    networks = sc_layers.load_network("net.pt", classes=model)
    for name, expected in {"G": G, "D": D, "G_ema": G}.items():
        state = networks[name].state_dict()
        assert all(torch.equal(state[key], value) for key, value in expected.state_dict().items())
old = {key: value for key, value in G.state_dict().items() if not key.startswith("noises.")}
torch.save({"g": old, "g_ema": old}, "old.pt")
codes, again = [torch.randn(2, 16)], sc_layers.load_network("old.pt", classes=model)["G_ema"]
noise = [torch.zeros(1)] * G.num_layers
assert torch.equal(again(codes, noise=noise)[0], G(codes, noise=noise)[0])
"""


def run(variable: str, script: str, folder: Path) -> None:
    checkout = os.environ.get(variable)
    if not checkout:
        pytest.skip(f"{variable} does not name a checkout")
    command = [sys.executable, "-c", PREPARE + script, str(Path(checkout).resolve()), str(ROOT)]
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(folder / "extensions")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variable", NETWORKS)
def test_their_networks_come_back_with_their_classes(variable: str, tmp_path: Path) -> None:
    run(variable, NETWORKS[variable] + SAVE + ROUND_TRIP, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("variable", NETWORKS)
def test_they_open_our_pkl(variable: str, tmp_path: Path) -> None:
    (tmp_path / "ours.pkl").write_bytes(samples.write_pkl(samples.states(), {}))
    run(variable, OPENS_OURS, tmp_path)


@pytest.mark.slow
def test_their_generate_script_runs_on_our_pkl(tmp_path: Path) -> None:
    from sc_layers import save_network
    from sc_layers.models import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

    generator = Generator(
        GeneratorConfig(resolution=8, module_list=samples.MODULES, fmap_base=8, fmap_max=8, fmap_min=1)
    )
    discriminator = Discriminator(DiscriminatorConfig(resolution=8, fmap_max=16))
    save_network(tmp_path / "rgb.pkl", G=generator, D=discriminator, G_ema=generator)
    run("STYLEGAN2_ADA_DIR", GENERATE, tmp_path)


@pytest.mark.slow
def test_stylegan2_networks_are_converted_as_they_do(tmp_path: Path) -> None:
    networks = samples.stylegan2_tuple()
    (tmp_path / "stylegan2.pkl").write_bytes(pickle.dumps(networks, 4))
    run("STYLEGAN2_ADA_DIR", STYLEGAN2, tmp_path)


@pytest.mark.slow
def test_rosinality_checkpoints_come_back_with_its_classes(tmp_path: Path) -> None:
    run("ROSINALITY_DIR", ROSINALITY, tmp_path)
