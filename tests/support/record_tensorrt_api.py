"""Record which names the Python binding of a TensorRT release really has.

    pip download --no-deps --only-binary=:all: --python-version 3.11 -d wheels tensorrt-cu12-bindings==10.3.0
    python -m tests.support.record_tensorrt_api wheels/*.whl > tests/support/recorded_tensorrt_apis.json

The binding is imported, so what is written is what pybind11 registered. Its libraries (hundreds of MiB, and on
PyPI for few releases) are not needed for that: empty stand-ins that define the symbols it asks for are compiled
with `cc`. A wheel of another Python than this one is imported by `python3.N` from the PATH.
"""

import ctypes
import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ENUMS = [
    "NetworkDefinitionCreationFlag",
    "BuilderFlag",
    "MemoryPoolType",
    "ProfilingVerbosity",
    "LayerInformationFormat",
    "DataType",
    "LayerType",
    "DeviceType",
    "HardwareCompatibilityLevel",
    "ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy",
    "TacticSource",
]
CLASSES = [
    "Builder",
    "IBuilderConfig",
    "INetworkDefinition",
    "ILayer",
    "IConvolutionLayer",
    "IFullyConnectedLayer",
    "IConstantLayer",
    "ITensor",
    "IOptimizationProfile",
    "OnnxParser",
    "ParserError",
    "OnnxParserRefitter",
    "Refitter",
    "Runtime",
    "ICudaEngine",
    "IExecutionContext",
    "IRuntimeConfig",
    "EngineInspector",
    "ITimingCache",
    "IProgressMonitor",
    "ILogger",
]
SYSTEM_LIBRARIES = re.compile(r"(lib(stdc\+\+|m|gcc_s|c|rt|dl|pthread)|ld-linux-x86-64)\.so")


def surface(module):
    """Return {"enums": {name: members}, "classes": {name: public attributes}} of what a TensorRT module has."""
    enums = {name: sorted(getattr(module, name).__members__) for name in ENUMS if hasattr(module, name)}
    classes = {name: public(getattr(module, name)) for name in CLASSES if hasattr(module, name)}
    return {"enums": enums, "classes": classes}


def public(kind):
    """List the attributes of a class, for a kind of layer those beyond every layer's."""
    inherited = {name for base in kind.__mro__[1:] if base.__name__ == "ILayer" for name in dir(base)}
    return sorted(name for name in dir(kind) if not name.startswith("_") and name not in inherited)


def load_extension(path):
    """Import a binding's extension module by itself, without the package that would look for its libraries."""
    loader = importlib.machinery.ExtensionFileLoader(Path(path).stem, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def make_stand_ins(extension, folder):
    """Compile an empty library for each one that `extension` asks for and no system has; return their names."""
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-d", extension))
    missing = [name for name in needed if not SYSTEM_LIBRARIES.match(name)]
    asked = re.findall(r" U (\w+)$", run("nm", "-D", "--undefined-only", extension), re.MULTILINE)
    here = ctypes.CDLL(None)  # the interpreter's own symbols and libc's must stay what they are
    source = folder / "stand_in.c"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in asked if not hasattr(here, name)))
    for name in missing:
        run("cc", "-w", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source)
    return missing


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, **options).stdout


def record(wheel):
    """Return ("tensorrt 10.3.0", its record) of a wheel that holds a binding."""
    distribution, version, tag = wheel.name.split("-")[:3]
    python = f"python{tag[2]}.{tag[3:]}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if re.search(r"/tensorrt(_rtx|_lean)?\.so$", name)]
            extension = Path(archive.extract(names[0], folder))
        stand_ins = make_stand_ins(extension, folder)
        executable = sys.executable if python == "python{}.{}".format(*sys.version_info) else python
        environment = os.environ | {"LD_LIBRARY_PATH": str(folder)}
        text = run(
            executable,
            __file__,
            "--extension",
            extension,
            env=environment,
        )
    read = f"imported from {distribution} {version} ({python}) against empty stand-ins of {', '.join(stand_ins)}"
    return f"{extension.stem} {version}", {"read": read, **json.loads(text)}


def as_text(records):
    """Return JSON with one enum or class a line."""
    blocks = []
    for version, entry in records.items():
        parts = [f'    "read": {json.dumps(entry["read"])}']
        for kind in ("enums", "classes"):
            lines = ",\n".join(f"      {json.dumps(name)}: {json.dumps(names)}" for name, names in entry[kind].items())
            parts.append(f'    "{kind}": {{\n{lines}\n    }}')
        blocks.append(f"  {json.dumps(version)}: {{\n" + ",\n".join(parts) + "\n  }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    if sys.argv[1] == "--extension":
        print(json.dumps(surface(load_extension(sys.argv[2]))))
    else:
        print(as_text(dict(record(Path(argument)) for argument in sys.argv[1:])), end="")
