"""Help texts: complete, and quick."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import prise
from deploy.commands.compose import compose

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("verb", prise.VERBS)
def test_help_names_every_group_and_key(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prise.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"prise {verb}" in text
    arguments = [
        f"{key}=x" for key in ("checkpoint", "path", "run", "what") if f"\n  {key}: ???" in text
    ]
    arguments += ["dataset.path=x"] if verb == "calibrate" else []
    config = compose(verb, arguments)
    assert [key for key in config if key != "choices" and key not in text] == []


def test_help_and_bad_words_need_no_torch() -> None:
    code = (
        "import sys, prise; "
        "prise.main(['--help']); prise.main(['train', '--help']); prise.main(['fly']); "
        "prise.main(['train', 'stepz=3']); "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
