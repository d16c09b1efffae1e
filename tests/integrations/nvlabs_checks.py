"""Checks inside a patched stylegan2-ada-pytorch or stylegan3: `python nvlabs_checks.py DIRECTORY CHECK FOLDER CFG`.

A process of its own for each: the code bases share module names. CFG is ada, stylegan2, stylegan3-t or stylegan3-r.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import json
import os
import pickle
import pkgutil
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from sc_layers import attach_spatial_constriction
from sc_layers.attach import (
    attachment_of,
    codes_of,
    constriction_parameters,
    detach_spatial_constriction,
    masks_of,
    traverse,
)
from sc_layers.integrations import compat, nvlabs
from tests.integrations.on_cpu import CudaMeansCpu, replace_gpu_functions
from tests.tolerances import assert_close_to_largest

K = 4
RESOLUTIONS = [16, 32]
NETWORK = {"z_dim": 16, "w_dim": 16, "img_resolution": 64, "img_channels": 3, "mapping_kwargs": {"num_layers": 2}}
NARROW = {"channel_base": 512, "channel_max": 16}


def network_options(cfg: str) -> tuple[str, dict[str, Any]]:
    """Class name and arguments of a narrow generator."""
    if cfg == "ada":
        return "training.networks.Generator", {"synthesis_kwargs": dict(NARROW)}
    if cfg == "stylegan2":
        return "training.networks_stylegan2.Generator", dict(NARROW)
    radial = {"conv_kernel": 1, "use_radial_filters": True} if cfg == "stylegan3-r" else {}
    return "training.networks_stylegan3.Generator", NARROW | radial


def build(class_name: str, **options: Any) -> Any:
    module, name = class_name.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**options)


def generator(cfg: str, c_dim: int = 0, **more: Any) -> Any:
    name, options = network_options(cfg)
    torch.manual_seed(0)
    return build(name, **NETWORK, c_dim=c_dim, **options, **more).eval()


def discriminator(cfg: str) -> Any:
    module = "training.networks" if cfg == "ada" else "training.networks_stylegan2"
    return build(f"{module}.Discriminator", c_dim=0, img_resolution=64, img_channels=3, **NARROW)


def attach(network: Any, init: str = "random") -> Any:
    return attach_spatial_constriction(network, K, RESOLUTIONS, init=init)


def latents(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, NETWORK["z_dim"] + K)


def identity(cfg: str, folder: Path) -> None:
    """Bit-equal images, class-conditional and truncated; detaching gives the network back."""
    network = generator(cfg, c_dim=3)
    z, c = latents(), torch.eye(3)[:2]
    narrow = z[:, : NETWORK["z_dim"]].contiguous()
    options = {"truncation_psi": 0.6, "noise_mode": "const"}
    before = network(narrow, c, **options)
    keys = list(network.state_dict())
    attach(network, "identity")
    assert torch.equal(network(z, c, **options), before)
    assert torch.equal(network(narrow, c, **options), before)
    ws = network.mapping(z, c, truncation_psi=0.6)
    assert torch.equal(codes_of(network, ws), z[:, NETWORK["z_dim"] :])
    assert masks_of(network, ws).shape == (2, K, 64, 64)
    detach_spatial_constriction(network)
    assert list(network.state_dict()) == keys
    assert torch.equal(network(narrow, c, **options), before)


def codes_act(cfg: str, folder: Path) -> None:
    """Every code moves the picture, and traversals show it."""
    network = attach(generator(cfg))
    rows = traverse(network, points=3, c=torch.zeros(1, 0))
    assert rows.shape == (K, 3, 3, 64, 64)
    assert ((rows[:, 2] - rows[:, 0]).abs().amax((1, 2, 3)) > 1e-4).all()


def half_precision(cfg: str, folder: Path) -> None:
    """Blocks in float16, channels_last, stay bit-equal and in float16."""
    if cfg != "ada":
        return  # stylegan3 computes in float32 wherever there is no GPU
    narrow = NARROW | {"num_fp16_res": 3, "fp16_channels_last": True, "conv_clamp": 256}
    torch.manual_seed(0)
    network = build("training.networks.Generator", **NETWORK, c_dim=0, synthesis_kwargs=narrow).eval()
    z = latents()
    before = network(z[:, :16].contiguous(), None, noise_mode="const")
    attach(network, "identity")
    seen: list[torch.Tensor] = []
    network.synthesis.b32.conv1.register_forward_hook(lambda module, args, output: seen.append(output))
    assert torch.equal(network(z, None, noise_mode="const"), before)
    assert seen[0].dtype == torch.float16
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def tools(cfg: str, folder: Path) -> None:
    """The code base's own helpers: summary, copying of weights, deepcopy, tracing."""
    misc = importlib.import_module("torch_utils.misc")
    network = attach(generator(cfg)).requires_grad_(False)
    z, c = latents(), torch.zeros(2, 0)
    image = network(z, c, noise_mode="const")
    misc.print_module_summary(network, [z, c])
    assert torch.equal(network(z, c, noise_mode="const"), image)
    fresh = attach(generator(cfg)).requires_grad_(False)
    misc.copy_params_and_buffers(network, fresh, require_all=True)
    assert torch.equal(fresh(z, c, noise_mode="const"), image)
    assert torch.equal(copy.deepcopy(network)(z, c, noise_mode="const"), image)
    traced = torch.jit.trace(lambda z, c: network(z, c, noise_mode="const"), [z, c], check_trace=False)
    torch.testing.assert_close(traced(z, c), image)


def breaks(network: Any, z: torch.Tensor) -> set[tuple[str, int, str]]:
    """File, line and reason of what `torch.compile` can't trace in a pass."""
    torch._dynamo.reset()
    explained = torch._dynamo.explain(lambda z: network(z, torch.zeros(2, 0), noise_mode="const"))(z)
    return {
        (reason.user_stack[-1].filename, reason.user_stack[-1].lineno, reason.reason.splitlines()[0])
        for reason in explained.break_reasons
    }


def compiled(cfg: str, folder: Path) -> None:
    """`torch.compile` breaks at no place where it does not without constriction, however often it tries again."""
    torch._dynamo.config.recompile_limit = 256
    network, z = generator(cfg), latents()
    before = breaks(network, z[:, : NETWORK["z_dim"]].contiguous())
    after = breaks(attach(network), z)
    print(cfg, "graph breaks at", len(before), "places plain,", len(after), "attached")
    assert after, "nothing was traced"
    assert after <= before, after - before


def pickled(cfg: str, folder: Path) -> None:
    """Persistence pickles of the code base, read in a fresh process."""
    network = attach(generator(cfg)).requires_grad_(False)
    z = latents()
    torch.save([z, network(z, torch.zeros(2, 0), noise_mode="const")], folder / "images.pt")
    with open(folder / "network.pkl", "wb") as file:
        pickle.dump({"G": network, "D": discriminator(cfg), "G_ema": network}, file)
    script = (
        "import pickle, sys, torch\n"
        "import sc_layers.integrations.nvlabs\n"
        "network = pickle.load(open(sys.argv[1] + '/network.pkl', 'rb'))['G_ema']\n"
        "z, images = torch.load(sys.argv[1] + '/images.pt')\n"
        "assert torch.equal(network(z, torch.zeros(2, 0), noise_mode='const'), images)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], cwd=sys.path[0], check=True)


def force_fp16(cfg: str, folder: Path) -> None:
    """`legacy.load_network_pkl(force_fp16=True)` rebuilds the networks, constriction included."""
    legacy = importlib.import_module("legacy")
    if cfg == "ada":
        narrow = NARROW | {"num_fp16_res": 0}
        network = attach(build("training.networks.Generator", **NETWORK, c_dim=0, synthesis_kwargs=narrow))
    else:
        network = attach(generator(cfg, num_fp16_res=0))
    with open(folder / "network.pkl", "wb") as file:
        pickle.dump({"G": network, "D": discriminator(cfg), "G_ema": network}, file)
    with open(folder / "network.pkl", "rb") as file:
        rebuilt = legacy.load_network_pkl(file, force_fp16=True)["G_ema"]
    assert attachment_of(rebuilt).arguments() == attachment_of(network).arguments()
    pairs = zip(constriction_parameters(rebuilt), constriction_parameters(network), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def phases(cfg: str, folder: Path) -> None:
    """Every phase of the code base's loss, path length (double backward) and R1 included."""
    loss_module = importlib.import_module("training.loss")
    training_stats = importlib.import_module("torch_utils.training_stats")
    network, D = generator(cfg).train(), discriminator(cfg).requires_grad_(False)
    training = nvlabs.Training(network, torch.device("cpu"), sc_codes=K, sc_res=RESOLUTIONS, ps_weight=0.1)
    if cfg == "ada":
        parts = {"G_mapping": network.mapping, "G_synthesis": network.synthesis}
        extra = {"sync": True}
    else:
        parts, extra = {"G": network}, {"cur_nimg": 0}
    inner = loss_module.StyleGAN2Loss(torch.device("cpu"), **parts, D=D, pl_weight=2, style_mixing_prob=0.9)
    loss = training.wrap_loss(inner, training_stats.report)
    module = nvlabs.GeneratorAndRecognizer(network, training.Q)
    added = constriction_parameters(network)
    for phase in ("Gmain", "Greg", "Gboth", "Dmain", "Dreg", "Dboth"):
        trained, other = (module, D) if phase.startswith("G") else (D, module)
        trained.requires_grad_(True)
        other.requires_grad_(False)
        for parameter in (*module.parameters(), *D.parameters()):
            parameter.grad = None
        z = torch.randn(4, network.z_dim)
        loss.accumulate_gradients(
            phase=phase,
            real_img=torch.randn(4, 3, 64, 64),
            real_c=torch.zeros(4, 0),
            gen_z=z,
            gen_c=torch.zeros(4, 0),
            gain=1,
            **extra,
        )
        gradients = [p.grad for p in trained.parameters() if p.grad is not None]
        assert gradients, phase
        assert all(g.isfinite().all() for g in gradients), phase
        assert all(p.grad is None for p in other.parameters()), phase
        if phase.startswith("G"):
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in added), phase
        recognized = any(p.grad is not None for p in training.Q.parameters())
        assert recognized == (phase in ("Gmain", "Gboth")), phase


def augmentation(cfg: str, folder: Path) -> None:
    """R1 through ADA's augmentations, which are affine: the second derivative is a difference of first ones."""
    conv2d_gradfix, grid_sample_gradfix = (
        importlib.import_module(f"torch_utils.ops.{name}_gradfix") for name in ("conv2d", "grid_sample")
    )
    grid_sample_gradfix.enabled = True
    if cfg == "ada":
        compat.repair_gradients(conv2d_gradfix, grid_sample_gradfix)
    geometry = dict.fromkeys(("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"), 1)
    colours = dict.fromkeys(("brightness", "contrast", "lumaflip", "hue", "saturation", "imgfilter"), 1)
    augment = importlib.import_module("training.augment").AugmentPipe(**geometry, **colours)

    def gradient(images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return torch.autograd.grad(augment(images).square().sum(), images, create_graph=True)[0]

    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    change = torch.randn_like(images)
    (second,) = torch.autograd.grad((gradient(images) * change).sum(), images)
    first = gradient(images + change) - gradient(images)
    assert_close_to_largest(second, first.detach(), 1e-5)


PLUGIN = """#include <pybind11/pybind11.h>
PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) { module.def("twice", [](int number) { return 2 * number; }); }
"""


def plugin(cfg: str, folder: Path) -> None:
    """The code base's own loader compiles a plugin and finds it."""
    torch.cuda.get_device_name = lambda: "none"  # type: ignore[assignment]
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    (folder / "toy.cpp").write_text(PLUGIN)
    custom_ops = importlib.import_module("torch_utils.custom_ops")
    assert custom_ops.get_plugin("toy_plugin", sources=[str(folder / "toy.cpp")]).twice(21) == 42


def names(cfg: str, folder: Path) -> None:
    """Everything that the code base takes from NumPy, Pillow and SciPy by its name exists."""
    sources = [file for file in Path(sys.path[0]).rglob("*.py") if file.is_file()]
    taken = {name for file in sources for name in dotted_names(ast.parse(file.read_text("utf-8-sig")))}
    assert {"numpy.random.RandomState", "PIL.Image.LANCZOS", "scipy.linalg.sqrtm"} <= taken
    missing = [name for name in sorted(taken) if name.startswith(("numpy.", "PIL.", "scipy.")) and not exists(name)]
    assert not missing


def dataset_tool(cfg: str, folder: Path) -> None:
    """Pictures of any size become a data set of the wanted one, whose images the code base's own class reads."""
    (folder / "pictures").mkdir()
    for index in range(3):
        PIL.Image.new("RGB", (48, 40), (80 * index, 200, 90)).save(folder / "pictures" / f"{index}.png")
    size = ["--width=32", "--height=32"] if cfg == "ada" else ["--resolution=32x32"]
    paths = [f"--source={folder / 'pictures'}", f"--dest={folder / 'made.zip'}"]
    process("dataset_tool.py", *paths, *size, "--transform=center-crop")
    made = importlib.import_module("training.dataset").ImageFolderDataset(str(folder / "made.zip"))
    assert made.image_shape == [3, 32, 32]
    assert [int(made[index][0][0, 0, 0]) for index in range(3)] == [0, 80, 160]


def dotted_names(tree: ast.AST) -> Iterator[str]:
    """`numpy.random.randn` for `np.random.randn` and the like."""
    imports = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    modules = {alias.asname: alias.name for alias in imports if alias.asname}
    attributes = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for first, *rest in (text.split(".") for text in attributes if re.fullmatch(r"[\w.]+", text)):
        yield ".".join([modules.get(first, first), *rest])


def exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def make_data(folder: Path, size: int = 64) -> str:
    """16 coloured squares of three classes as the code bases' zip data set."""
    random = np.random.default_rng(0)
    names = [f"{index:05d}.png" for index in range(16)]
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        for name in names:
            picture = np.full((size, size, 3), random.integers(0, 255, 3), np.uint8)
            picture[size // 8 : 5 * size // 8, size // 4 : 3 * size // 4] = random.integers(0, 255, 3)
            with archive.open(name, "w") as file:
                PIL.Image.fromarray(picture).save(file, "PNG")
        labels = [[name, index % 3] for index, name in enumerate(names)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return str(folder / "data.zip")


def train(cfg: str, folder: Path, name: str, labels: bool = False, **options: Any) -> dict[str, Any]:
    """The code base's training loop for 16 images; returns the networks of its snapshot."""
    loop = importlib.import_module("training.training_loop")
    dnnlib = importlib.import_module("dnnlib")
    legacy = importlib.import_module("legacy")
    class_name, narrow = network_options(cfg)
    common = {key: value for key, value in NETWORK.items() if not key.startswith("img_")}
    d_module = "training.networks" if cfg == "ada" else "training.networks_stylegan2"
    run = folder / name
    run.mkdir()
    adam = {"class_name": "torch.optim.Adam", "lr": 0.002, "betas": [0, 0.99], "eps": 1e-8}
    arguments = {
        "run_dir": str(run),
        "training_set_kwargs": dnnlib.EasyDict(
            class_name="training.dataset.ImageFolderDataset", path=make_data(run), use_labels=labels, resolution=64
        ),
        "data_loader_kwargs": {"num_workers": 0},
        "G_kwargs": dnnlib.EasyDict(class_name=class_name, **common, **narrow),
        "D_kwargs": dnnlib.EasyDict(class_name=f"{d_module}.Discriminator", **NARROW),
        "G_opt_kwargs": dnnlib.EasyDict(adam),
        "D_opt_kwargs": dnnlib.EasyDict(adam),
        "loss_kwargs": dnnlib.EasyDict(class_name="training.loss.StyleGAN2Loss", r1_gamma=1),
        "augment_kwargs": dnnlib.EasyDict(class_name="training.augment.AugmentPipe", xflip=1, rotate90=1, scale=1),
        "augment_p": 0.5,
        "batch_size": 8,
        "batch_gpu": 4,
        "total_kimg": 0.016,
        "kimg_per_tick": 1,
        "image_snapshot_ticks": 1,
        "network_snapshot_ticks": 1,
        **options,
    }
    flags = arguments.pop("flags", {})
    nvlabs.configure(arguments, flags)
    loop.setup_snapshot_image_grid = four_images
    with CudaMeansCpu():
        loop.training_loop(**arguments)
    snapshot = sorted(run.glob("network-snapshot-*.pkl"))[-1]
    with open(snapshot, "rb") as file:
        return {"path": str(snapshot), "run": run, **legacy.load_network_pkl(file)}


def four_images(training_set: Any, random_seed: int = 0) -> Any:
    """In place of the code base's grid of a thousand, which takes most of the time."""
    images, labels = zip(*[training_set[index] for index in range(4)], strict=True)
    return (2, 2), np.stack(images), np.stack(labels)


FLAGS = {"sc_codes": K, "sc_res": "16,32", "ps_weight": 0.1}


def training(cfg: str, folder: Path) -> None:
    """By class; from scratch, where memory that was never set is not a number, then resumed and frozen."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills such memory
    first = train(cfg, folder, "first", labels=True, flags=FLAGS)
    torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in first["G"].state_dict().values())
    assert first["Q"].num_codes == K
    statistics = [json.loads(line) for line in (first["run"] / "stats.jsonl").read_text().splitlines()]
    assert all(line["Loss/PS/loss"]["num"] > 0 for line in statistics)

    frozen = train(cfg, folder, "frozen", True, flags=FLAGS | {"sc_freeze_g": True}, resume_pkl=first["path"])
    added = {id(parameter) for parameter in constriction_parameters(frozen["G"])}
    before = dict(first["G"].named_parameters())
    for name, parameter in frozen["G"].named_parameters():
        assert id(parameter) in added or torch.equal(parameter, before[name]), name
    assert any(not torch.equal(p, before[n]) for n, p in frozen["G"].named_parameters() if id(p) in added)
    recognizers = zip(frozen["Q"].parameters(), first["Q"].parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in recognizers)


def fine_tuning(cfg: str, folder: Path) -> None:
    """From an unpatched pickle: identical at first, constriction moves; the script says that Q is fresh."""
    network = generator(cfg)
    pickle_path = folder / "pretrained.pkl"
    with open(pickle_path, "wb") as file:
        pickle.dump({"G": network, "D": discriminator(cfg), "G_ema": network}, file)
    tuned = train(cfg, folder, "tuned", flags=FLAGS, resume_pkl=str(pickle_path))
    gains = [p for n, p in tuned["G"].named_parameters() if n.endswith("mask_gain")]
    assert all(0 < gain.abs().max() < 0.1 for gain in gains)


def saved(cfg: str, folder: Path) -> tuple[Any, Path]:
    """An attached generator, and a pickle of the code base that holds it."""
    network = attach(generator(cfg)).requires_grad_(False)
    network.mapping.w_avg += 0.1
    path = folder / "network.pkl"
    with open(path, "wb") as file:
        pickle.dump({"G": network, "D": discriminator(cfg), "G_ema": network, "training_set_kwargs": None}, file)
    return network, path


def process(*arguments: Any, **environment: Any) -> str:
    """Run Python in the directory of the code base."""
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    variables = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    result = subprocess.run(command, cwd=sys.path[0], env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def script(name: str, *arguments: Any, **environment: Any) -> str:
    """Run a script of the code base on the CPU."""
    return process(Path(__file__).with_name("on_cpu.py"), name, *arguments, **environment)


def pixels(path: Path) -> Any:
    return np.asarray(PIL.Image.open(path)).astype(int)


def scripts(cfg: str, folder: Path) -> None:
    """Scripts of the code base and commands of ours on the same pickle, with the same pictures and numbers."""
    _, path = saved(cfg, folder)
    theirs, ours = folder / "theirs", folder / "ours"
    generate = "generate.py" if cfg == "ada" else "gen_images.py"
    script(generate, "--seeds=0-2", "--trunc=0.7", "--noise-mode=const", f"--network={path}", f"--outdir={theirs}")
    code = [path, "--code", sys.path[0], "--device", "cpu"]
    commands = ("-m", "sc_layers")
    process(*commands, "generate", *code, "--seeds", "0-2", "--truncation", 0.7, "--outdir", ours)
    for seed in range(3):
        first, second = (pixels(run / f"seed000{seed}.png") for run in (theirs, ours))
        assert abs(first - second).max() <= 1, seed
        assert first.std() > 1
    process(*commands, "traverse", *code, "--outdir", ours)
    with PIL.Image.open(ours / "traverse0000.gif") as gif:
        assert gif.size == (K * 64, 2 * 64)  # above the masks
    if cfg == "ada":
        mixed = ["--rows=1,2", "--cols=3", "--styles=0-3", f"--network={path}", f"--outdir={folder / 'mix'}"]
        script("style_mixing.py", *mixed)
        assert pixels(folder / "mix" / "grid.png").std() > 1
    if cfg == "stylegan3-t":
        return  # a thousand images take minutes
    printed = script(
        "calc_metrics.py",
        *("--metrics=tpl_small", f"--data={make_data(folder)}", f"--network={path}", "--gpus=1", "--verbose=0"),
        SC_LAYERS_TPL_DISTANCE="mse",
    )
    line = next(line for line in printed.splitlines() if line.startswith("{"))
    settings = ["--metrics", "tpl_small_0.3", "--distance", "mse", "--outdir", ours, "--json"]
    length = json.loads(process(*commands, "metrics", *code, *settings))["results"]
    assert abs(json.loads(line)["results"]["tpl_small"] / length["total"] - 1) < 1e-4


class SmallerImages(torch.nn.Module):
    """Stands in for the perceptual network that projector.py downloads, with its way of being called."""

    def forward(self, images: torch.Tensor, resize_images: bool, return_lpips: bool) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 4).flatten(1) / 255


VGG16 = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt"


def projector(cfg: str, folder: Path) -> None:
    """stylegan2-ada's projector.py comes closer to an image of the generator, moves codes too, and w can be used."""
    if cfg != "ada":
        return  # stylegan3 has no projector
    network, path = saved(cfg, folder)
    (folder / "downloads").mkdir()
    name = hashlib.md5(VGG16.encode()).hexdigest()
    torch.jit.script(SmallerImages()).save(folder / "downloads" / f"{name}_vgg16.pt")
    image = network(latents(1), torch.zeros(1, 0), noise_mode="const")[0]
    bytes_of = (image.permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).byte().numpy()
    PIL.Image.fromarray(bytes_of).save(folder / "target.png")
    settings = [f"--network={path}", f"--target={folder / 'target.png'}", f"--outdir={folder}", "--save-video=false"]
    printed = script("projector.py", *settings, "--num-steps=40", DNNLIB_CACHE_DIR=folder)
    distances = [float(line.split("dist ")[1].split()[0]) for line in printed.splitlines() if " dist " in line]
    assert distances[-1] < 0.5 * distances[0]
    ws = torch.from_numpy(np.load(folder / "projected_w.npz")["w"])
    assert codes_of(network, ws).abs().min() > 0
    script("generate.py", f"--network={path}", f"--projected-w={folder / 'projected_w.npz'}", f"--outdir={folder}")
    assert abs(pixels(folder / "proj.png") - pixels(folder / "proj00.png")).mean() < 30  # it has other noise


def plain(cfg: str, folder: Path) -> None:
    """Train without our arguments and keep everything that came out; also runs in a code base without the patch."""
    compat.repair_sampler(importlib.import_module("torch_utils.misc").InfiniteSampler)
    torch.empty = torch.zeros  # of what was never set, stylegan2-ada's first average of w is made
    networks = train(cfg, folder, "plain", flags={})
    states = {name: networks[name].state_dict() for name in ("G", "D", "G_ema")}
    lines = [json.loads(line) for line in (networks["run"] / "stats.jsonl").read_text().splitlines()]
    torch.save(
        [states, [{key: line[key] for key in line if key.startswith("Loss/")} for line in lines]], folder / "all.pt"
    )


def without_flags(cfg: str, folder: Path) -> None:
    """The loop without our arguments trains as ever, and its snapshot has nothing of ours."""
    plain = train(cfg, folder, "plain", flags={})
    assert "Q" not in plain
    assert not hasattr(plain["G"], "spatial_constriction")


if __name__ == "__main__":
    directory, check, folder, cfg = sys.argv[1:]
    sys.path.insert(0, directory)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    replace_gpu_functions()
    globals()[check](cfg, Path(folder))
