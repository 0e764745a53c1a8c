"""Makes fdl/ and README.md from the notebooks, cleans these, says what changed: `make export`.

    python scripts/export.py
"""
import subprocess
import sys
from pathlib import Path

import readme

ROOT = readme.ROOT


def made() -> dict[str, bytes]:
    "The files that an export may write, with their contents."
    paths = [*ROOT.glob("fdl/**/*.py"), *ROOT.glob("nbs/*.ipynb"), *ROOT.glob("README.md"),
             *ROOT.glob(f"{readme.PICTURES}/*.png")]
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}


def main() -> None:
    before = made()
    for command in ("nbdev-export", "nbdev-clean"):
        done = subprocess.run([Path(sys.executable).parent/command], cwd=ROOT)
        if done.returncode: sys.exit(done.returncode)
    readme.main(ROOT)
    after = made()
    changed = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    print(f"Changed: {', '.join(changed)}." if changed else
          "Nothing changed: fdl/ and README.md are what the notebooks say.")
    print("What an open notebook has not saved yet does not count.")


if __name__ == "__main__": main()
