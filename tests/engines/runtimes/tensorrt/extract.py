"""Write down what the published Python bindings of TensorRT and CUDA offer, into `bindings.json` beside this file.

    python tests/engines/runtimes/tensorrt/extract.py

Downloads the wheels named below from the package index (no GPU, no driver, none of NVIDIA's libraries). The bindings
of TensorRT are linked to three libraries that are not on the index: stand-ins are made, in which each of the nine
functions needed gives NULL. That is enough to import them and to read the signatures out of the docstrings that
pybind11 writes. Needs Python 3.11 (the wheels are for it), a C compiler, readelf and nm.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engines.runtimes.tensorrt import bindings
from engines.runtimes.tensorrt.libraries import CudaModule

TENSORRT = ("10.13.3.9", "10.16.1.11", "11.4.0.106")
CUDA = ("12.9.10", "13.5.0")
CLASSES = sorted(
    name for name, found in vars(bindings).items() if inspect.isclass(found) and found.__module__ == bindings.__name__
)
TARGET = Path(__file__).with_name("bindings.json")


def main() -> None:
    if len(sys.argv) == 4:  # a child: one version in a process of its own, for they cannot be imported side by side
        package, site, stand_ins = sys.argv[1:]
        sys.path.insert(0, site)
        read = read_tensorrt if package == "tensorrt" else read_cuda
        sys.stdout.write(json.dumps(read(Path(site), Path(stand_ins))))
        return
    found = {
        "tensorrt": {version: extracted("tensorrt", f"tensorrt-cu13-bindings=={version}") for version in TENSORRT},
        "cuda": {version: extracted("cuda", f"cuda-bindings=={version}") for version in CUDA},
    }
    TARGET.write_text(written(found) + "\n")


def written(value: Any, depth: int = 4) -> str:
    """JSON with a line for each class."""
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {written(value[key], depth - 1)}" for key in value) + "\n}"


def extracted(package: str, requirement: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        site, wheels, stand_ins = (Path(folder) / name for name in ("site", "wheels", "stand-ins"))
        stand_ins.mkdir()
        pip = [sys.executable, "-m", "pip", "--quiet"]
        wanted = [requirement, "cuda-pathfinder"] if package == "cuda" else [requirement]
        subprocess.run([*pip, "download", "--no-deps", "--only-binary=:all:", "-d", wheels, *wanted], check=True)
        subprocess.run([*pip, "install", "--no-deps", "--target", site, *wheels.iterdir()], check=True)
        child = [sys.executable, __file__, package, site, stand_ins]
        read: dict[str, Any] = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout)
        (wheel,) = (path for path in wheels.iterdir() if "bindings" in path.name)
        return {"wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(), **read}


def read_tensorrt(site: Path, stand_ins: Path) -> dict[str, Any]:
    stand_in(site / "tensorrt_bindings" / "tensorrt.so", stand_ins)
    for library in stand_ins.glob("*.so.*"):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    module = importlib.import_module("tensorrt_bindings")
    classes = {name: getattr(module, name) for name in CLASSES if hasattr(module, name)}
    classes["ILogger.Severity"] = module.ILogger.Severity
    return {"version": module.__version__, "classes": {name: described(found) for name, found in classes.items()}}


def stand_in(bindings_file: Path, folder: Path) -> None:
    """Libraries by the names that the bindings are linked to; the functions that they need give NULL."""
    dynamic = subprocess.run(["readelf", "-dW", bindings_file], check=True, capture_output=True, text=True).stdout
    needed = [name for name in re.findall(r"NEEDED.*\[(.+?)\]", dynamic) if "nv" in name]
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", bindings_file], check=True, capture_output=True, text=True
    ).stdout
    functions = re.findall(r" U ((?:create|get|init)\w+)$", symbols, re.MULTILINE)
    source = folder / "functions.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
    for name in needed:
        subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True)


def described(kind: Any) -> dict[str, Any]:
    if hasattr(kind, "__members__"):
        return {"members": sorted(kind.__members__)}
    own = {name: found for name, found in vars(kind).items() if not name.startswith("_") or name == "__init__"}
    properties = {name: "rw" if found.fset else "ro" for name, found in own.items() if isinstance(found, property)}
    methods = {name: overloads(name, found.__doc__ or "") for name, found in own.items() if name not in properties}
    return {"properties": properties, "methods": {name: found for name, found in methods.items() if found}}


def overloads(name: str, text: str) -> list[str]:
    """Argument names of each overload, without self; those with a default end in '='."""
    signatures = re.findall(rf"^(?:\d+\. )?{re.escape(name)}\((self: .*)\) -> ", text, re.MULTILINE)
    return [" ".join(argument(part) for part in split(signature)[1:]) for signature in signatures]


def split(signature: str) -> list[str]:
    """At the commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in signature:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def argument(part: str) -> str:
    return part.partition(":")[0].strip() + ("=" if " = " in part else "")


def read_cuda(_site: Path, _stand_ins: Path) -> dict[str, Any]:
    module = importlib.import_module("cuda.bindings.runtime")
    wanted = sorted(name for name in vars(CudaModule) if name.startswith("cuda"))
    functions, constants, classes = {}, [], {}
    for name in wanted:
        found = getattr(module, name)
        if hasattr(found, "__members__"):
            classes[name] = {"members": sorted(found.__members__)}
        elif callable(found):
            listed = found.__doc__.split("(", 1)[1].split(")", 1)[0]
            functions[name] = " ".join(word_of(part) for part in split(listed))
        else:
            constants.append(name)
    attributes = {name: "rw" for name in dir(module.cudaDeviceProp) if not name.startswith("_")}
    classes["cudaDeviceProp"] = {"properties": attributes, "methods": {}}
    return {"functions": functions, "constants": constants, "classes": classes}


def word_of(part: str) -> str:
    """`size_t count` and `kind: cudaMemcpyKind` are the arguments count and kind."""
    return part.partition(":")[0].split()[-1]


if __name__ == "__main__":
    main()
