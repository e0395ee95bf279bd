"""The script that compiles kernels for real cards tells good kernels from bad ones."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script() -> ModuleType:
    path = Path(__file__).parent.parent / "scripts" / "compile_kernels.py"
    spec = importlib.util.spec_from_file_location("compile_kernels", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compile_kernels"] = module
    spec.loader.exec_module(module)
    return module


def test_a_good_kernel_compiles_and_a_bad_one_is_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    try:
        compiler = script.nvrtc()
    except script.MissingError as error:
        pytest.skip(str(error))
    header = (script.KERNELS / "device.h").read_text(encoding="utf-8")
    (tmp_path / "device.h").write_text(header, encoding="utf-8")
    (tmp_path / "good.hip").write_text("EXPORT(f, (float *x), { x[0] = 1.0f; })")
    (tmp_path / "bad.hip").write_text("EXPORT(f, (float *x), { x[0] = unknown; })")
    monkeypatch.setattr(script, "KERNELS", tmp_path)
    assert script.compile_all(compiler, ("sm_80",), []) == 1
    said = capsys.readouterr().out
    assert "bad.hip for sm_80 does not compile" in said
    assert '"unknown" is undefined' in said
    assert "good.hip for" not in said
    assert script.compile_all(compiler, ("sm_80",), ["good"]) == 0


def test_a_compiler_that_must_be_here_and_is_not_is_an_error(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def absent() -> None:
        raise script.MissingError("NVRTC is not here: pip install nvidia-cuda-nvrtc-cu12")

    monkeypatch.setattr(script, "nvrtc", absent)
    monkeypatch.setattr(script, "AMD", ())
    monkeypatch.setattr(sys, "argv", ["compile_kernels.py", "--require", "nvidia", "basics"])
    assert script.main() == 1
    assert "not compiled for nvidia: NVRTC is not here" in capsys.readouterr().out
