"""A machine whose parts are sleepers, so that a test need not start real servers."""

import sys
from pathlib import Path
from typing import Any

from distmark.machine.parts import Part
from distmark.machine.supervisor import Machine
from distmark.settings import Mode, Settings

# A part is ready once it has said what it does about SIGTERM: whoever asks it to end before would find it as Python began it.
READY = "\nif sys.argv[1:]: pathlib.Path(sys.argv[2], sys.argv[1] + '.ready').touch()\nwhile True: time.sleep(0.05)"
SLEEPER = "import pathlib, signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(0))" + READY
STUBBORN = "import pathlib, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)" + READY


class SmallMachine(Machine):
    """A machine whose parts are sleepers, so that a test need not start real servers."""

    script = SLEEPER

    def _part(self, name: str) -> Part:
        return Part(name, (sys.executable, "-c", self.script, name, str(self.data_dir)), (self.data_dir / f"{name}.ready").exists)

    def run_once(self, name: str, command: list[str]) -> None:
        """Nothing is registered here."""


def settings_of(folder: Path, **changes: Any) -> Settings:
    ports = {"port": 18080, "prefect_api_url": "http://127.0.0.1:14200/api", "smtp_port": 11025}
    return Settings(_env_file=None, mode=Mode.demo, data_dir=folder, **{**ports, **changes})
