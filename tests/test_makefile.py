import subprocess
from pathlib import Path


def test_clean_keeps_the_workspaces_of_teams():
    """`workspace/faces` of the README holds what nobody can make again."""
    dry_run = ["make", "--dry-run", "--no-print-directory", "clean"]
    done = subprocess.run(dry_run, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["rm", "-rf", ".venv", ".venv-label-studio", "workspace/demo"]
