"""A folder of patches and edit scripts as a researcher."""

from __future__ import annotations

from pathlib import Path

import pytest
from modgrad.autoresearch.errors import ResearcherError, ResearcherGone
from modgrad.autoresearch.researchers.base import Failure, Researcher
from modgrad.autoresearch.researchers.script import Script

from tests.test_command import briefing, make_workspace

PATCH = """\
--- a/isis/ffn.py
+++ b/isis/ffn.py
@@ -1 +1 @@
-width = 1
+width = 2
"""


def test_scripts_are_applied_in_order(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    folder = tmp_path / "steps"
    folder.mkdir()
    (folder / "0001-double-the-width.patch").write_text(PATCH)
    (folder / "0002-add-depth.py").write_text("open('isis/ffn.py', 'a').write('depth = 3\\n')\n")
    (folder / "0003-again.patch").write_text(PATCH)
    (folder / "README").write_text("not a step")
    script: Researcher = Script(folder)
    assert script.propose(workspace, briefing(0)).hypothesis == "double the width"
    assert script.propose(workspace, briefing(1)).hypothesis == "add depth"
    assert (workspace / "isis" / "ffn.py").read_text() == "width = 2\ndepth = 3\n"
    with pytest.raises(ResearcherError, match=r"0003-again\.patch: does not apply"):
        script.propose(workspace, briefing(2))
    with pytest.raises(ResearcherGone, match="holds 3 scripts"):
        script.propose(workspace, briefing(3))
    with pytest.raises(ResearcherGone, match="cannot be read"):
        Script(tmp_path / "none").propose(workspace, briefing(0))
    assert script.repair(workspace, briefing(0), Failure("shape", "", "")) is None


def test_a_patch_runs_nothing_of_the_workspace(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    folder = tmp_path / "steps"
    folder.mkdir()
    (folder / "1-wider.patch").write_text(PATCH)
    hook = workspace / ".git" / "hooks" / "post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    hook.chmod(0o755)
    config = workspace / ".git" / "config"
    config.write_text(config.read_text() + f"[core]\n\tfsmonitor = touch {tmp_path}/pwned\n")
    Script(folder).propose(workspace, briefing(0))
    assert (workspace / "isis" / "ffn.py").read_text() == "width = 2\n"
    assert not (tmp_path / "pwned").exists()
