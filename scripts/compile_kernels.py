"""Compiles every kernel of crates/modgrad-device for real cards, without one.

NVIDIA: to machine code for sm_80 and sm_90 with NVRTC from PyPI (nvidia-cuda-nvrtc-cu12).
AMD: to code objects for gfx1030, gfx90a and gfx1102 with Debian's clang-15 and device
libraries (apt-get install hipcc rocm-device-libs llvm-15 clang-15).

    python scripts/compile_kernels.py [--require nvidia,amd] [NAME ...]

A compiler that is absent is named, and an error only where it is required. Exit status 1 if
a kernel does not compile.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "crates" / "modgrad-device" / "kernels"
NVIDIA = ("sm_80", "sm_90")
AMD = ("gfx1030", "gfx90a", "gfx1102")
BITCODE = Path("/usr/lib/x86_64-linux-gnu/amdgcn/bitcode")

# Compiles (name, text, architecture); what the compiler says is wrong, or None.
Compiler = Callable[[str, str, str], str | None]


class MissingError(Exception):
    """A compiler that this machine does not have."""


def sources(names: list[str]) -> Iterator[tuple[str, str]]:
    """Names and whole texts, as the run-time compiler gets them."""
    header = (KERNELS / "device.h").read_text(encoding="utf-8")
    for path in sorted(KERNELS.glob("*.hip")):
        if not names or path.stem in names:
            text = path.read_text(encoding="utf-8")
            yield path.stem, f'{header}\n#line 1 "{path.name}"\n{text}'


def nvrtc() -> Compiler:
    """NVRTC, from its package or the system."""
    library = ctypes.CDLL(str(nvrtc_path()))
    version = (ctypes.c_int * 2)()
    library.nvrtcVersion(ctypes.byref(version, 0), ctypes.byref(version, 4))
    print(f"NVRTC {version[0]}.{version[1]}")

    def compile_with(name: str, text: str, architecture: str) -> str | None:
        program = ctypes.c_void_p()
        library.nvrtcCreateProgram(
            ctypes.byref(program), text.encode(), f"{name}.hip".encode(), 0, None, None
        )
        options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
        given = (ctypes.c_char_p * len(options))(*options)
        status = library.nvrtcCompileProgram(program, len(options), given)
        size = ctypes.c_size_t()
        if status:
            library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            library.nvrtcGetProgramLog(program, log)
            wrong = log.value.decode(errors="replace")
        else:
            library.nvrtcGetCUBINSize(program, ctypes.byref(size))
            wrong = "" if size.value else "no machine code came out"
        library.nvrtcDestroyProgram(ctypes.byref(program))
        return wrong or None

    return compile_with


def nvrtc_path() -> Path | str:
    found = importlib.util.find_spec("nvidia")
    for folder in found.submodule_search_locations or [] if found else []:
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return path
    for name in ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    raise MissingError("NVRTC is not here: pip install nvidia-cuda-nvrtc-cu12")


def clang(folder: Path) -> Compiler:
    """Debian's clang-15 with a device library for gfx1102 made in `folder`."""
    absent = [tool for tool in ("clang-15", "llvm-dis-15", "llvm-as-15") if not shutil.which(tool)]
    if not BITCODE.is_dir():
        absent.append(str(BITCODE))
    if not Path("/usr/include/hip/hip_runtime.h").is_file():
        absent.append("hip/hip_runtime.h")
    if absent:
        raise MissingError(
            f"{', '.join(absent)} not here: "
            "apt-get install clang-15 llvm-15 rocm-device-libs hipcc libamdhip64-dev"
        )
    print(subprocess.check_output(["clang-15", "--version"], text=True).splitlines()[0])
    libraries = device_libraries(folder)

    def compile_with(name: str, text: str, architecture: str) -> str | None:
        source, code = folder / f"{name}.hip", folder / "code"
        source.write_text(text, encoding="utf-8")
        code.unlink(missing_ok=True)
        command = ["clang-15", "-x", "hip", "-std=c++17", "-O3", "--cuda-device-only"]
        command += [f"--offload-arch={architecture}", "-include", "hip/hip_runtime.h"]
        command += ["--rocm-path=/usr", f"--rocm-device-lib-path={libraries}"]
        done = subprocess.run([*command, source, "-o", code], capture_output=True, text=True)
        if done.returncode:
            return done.stderr
        return None if code.is_file() and code.stat().st_size else "no code object came out"

    return compile_with


def device_libraries(folder: Path) -> Path:
    """The device libraries, with the one that clang 15 lacks for gfx1102: such a file only
    defines the architecture's number, so it is made from that of a neighbour."""
    libraries = folder / "bitcode"
    libraries.mkdir()
    for path in BITCODE.glob("*.bc"):
        (libraries / path.name).symlink_to(path)
    ours = libraries / "oclc_isa_version_1102.bc"
    if not ours.exists():
        neighbour = libraries / "oclc_isa_version_1036.bc"
        text = subprocess.check_output(["llvm-dis-15", neighbour, "-o", "-"], text=True)
        text = text.replace("i32 10306", "i32 11002")
        subprocess.run(["llvm-as-15", "-o", ours], input=text.encode(), check=True)
    return libraries


def compile_all(compiler: Compiler, architectures: tuple[str, ...], names: list[str]) -> int:
    """The number of sources that don't compile."""
    failures = 0
    for architecture in architectures:
        count = 0
        for name, text in sources(names):
            count += 1
            if wrong := compiler(name, text, architecture):
                failures += 1
                lines = wrong.strip().splitlines()
                print(f"{name}.hip for {architecture} does not compile:", *lines[:20], sep="\n  ")
        print(f"{architecture}: {count} sources")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="sources to compile; all if none")
    parser.add_argument("--require", default="", help="of nvidia, amd: those that must be here")
    arguments = parser.parse_args()
    required = [name for name in arguments.require.split(",") if name]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        makers = {
            "nvidia": (nvrtc, NVIDIA),
            "amd": (lambda: clang(Path(folder)), AMD),
        }
        for vendor, (maker, architectures) in makers.items():
            try:
                compiler = maker()
            except MissingError as error:
                print(f"not compiled for {vendor}: {error}")
                failures += vendor in required
                continue
            failures += compile_all(compiler, architectures, arguments.names)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
