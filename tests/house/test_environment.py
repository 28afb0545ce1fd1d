"""The set-up of bash/environment.sh, where everything is installed already: nothing here is downloaded."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.harness import ROOT


def test_the_environments_python_finds_the_project_from_any_folder(tmp_path: Path) -> None:
    """By a .pth file, which names the folder that the project is in now; a moved project is found again."""
    for name in ("first", "moved"):
        root = tmp_path / name
        if name == "first":
            (root / "bash").mkdir(parents=True)
            shutil.copyfile(ROOT / "bash" / "environment.sh", root / "bash" / "environment.sh")
            for file in ("requirements.txt", "constraints.txt"):
                shutil.copyfile(ROOT / file, root / file)
            (root / "lcmat").mkdir()
            (root / "lcmat" / "__init__.py").write_text("where = __file__\n")
            subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True, capture_output=True)
            wanted = subprocess.run(
                "cat requirements.txt constraints.txt requirements.txt | cksum",
                shell=True, cwd=root, check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
            (root / ".venv" / ".installed").write_text(wanted)
        else:
            (tmp_path / "first").rename(root)
        sourced = subprocess.run(
            ["bash", "-c", 'source "$0" requirements.txt', root / "bash" / "environment.sh"],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert sourced.returncode == 0, sourced.stderr
        asked = [root / ".venv" / "bin" / "python", "-c", "import lcmat; print(lcmat.where)"]
        found = subprocess.run(asked, cwd="/", capture_output=True, text=True)
        assert found.stdout.strip() == str(root / "lcmat" / "__init__.py"), found.stderr
