"""Seventy thousand handwritten digits, without trust in the file they come in."""
import gzip
import hashlib
import math
import os
import pickle
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pooch
import torch
from torch import Tensor

__all__ = ["read_idx", "load_mnist"]

_ARCHIVE = "https://archive.softwareheritage.org/api/1/content/sha256:{sha256}/raw/"
_MNIST = ("https://raw.githubusercontent.com/mnielsen/neural-networks-and-deep-learning/master/"
          "data/{file}", _ARCHIVE,
          "https://github.com/MichalDanielDobrzanski/DeepLearningPython/raw/master/{file}")
_FASHION = ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
            "{file}", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}", _ARCHIVE)
_KNOWN = {  # file: (SHA-256 of what gzip holds, since its own header may hold a name; of the file,
            # by which the archive knows it; mirrors)
    "mnist.pkl.gz": (
        "08c3b55725c13d27ee9f14f47c34689eebd9c3d611c9aa144e0f91d85b297337",
        "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416", _MNIST),
    "fashion_mnist/train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", _FASHION),
    "fashion_mnist/train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", _FASHION),
    "fashion_mnist/t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", _FASHION),
    "fashion_mnist/t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", _FASHION),
}
_TIMEOUT = 20  # seconds without a byte until a mirror is given up


def _unpack(path: Path) -> bytes:
    "The bytes of the file `path`, out of gzip if they are in it."
    if path.is_dir(): raise ValueError(f"{path} is a folder, wanted a file")
    data = path.read_bytes()
    try: return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, OSError, zlib.error) as e:
        raise ValueError(f"{path} is a damaged gzip file: {e}. Fetch it again.") from e

def _parse_idx(data: bytes, path: Path) -> Tensor:
    "The array of unsigned bytes in `data`, which came from `path`."
    start = 4 + 4*data[3] if len(data) > 3 else 4
    if data[:3] != b"\0\0\x08" or len(data) < start:
        raise ValueError(f"{path} is no IDX file of unsigned bytes: it starts with "
                         f"{data[:4].hex(' ') or 'nothing'}, wanted 00 00 08, the number of "
                         "dimensions and their sizes")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise ValueError(f"{path} is damaged: its header says {shape}, that is {math.prod(shape):,}"
                         f" bytes, but {len(data) - start:,} follow it")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy())

def read_idx(path: str | Path) -> Tensor:
    """The array of unsigned bytes in the IDX file `path`, which may be compressed with gzip.

    Shapes: uint8 of the shape in the file's header: (n, rows, cols) for images, (n,) for labels.
    Raises `ValueError` if it is no IDX file of unsigned bytes, is cut off, or is too long.
    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits, "File formats".
    """
    return _parse_idx(_unpack(Path(path)), Path(path))

def _folders(data_dir: str | Path | None) -> list[Path]:
    "The folders to look in, in order; a download goes to the first, but never into the course."
    course = Path(find_spec("fdl").origin).parents[1]
    folders = [Path(f).expanduser() for f in (data_dir, os.environ.get("FDL_DATA")) if f]
    if (course/"nbs"/"01_mnist.ipynb").exists(): folders.append(course/"data")
    return folders + [Path(pooch.os_cache("fdl"))]

def _download(file: str, path: Path) -> None:
    "Stores `file` as `path`, from the first mirror that sends the right bytes."
    inside, sha256, mirrors = _KNOWN[file]
    # identity: the bytes of the file itself, not packed once more for the journey
    fetch = pooch.HTTPDownloader(progressbar=True, chunk_size=2**16, timeout=_TIMEOUT,
                                 headers={"Accept-Encoding": "identity"})
    failures = []
    for url in (mirror.format(file=path.name, sha256=sha256) for mirror in mirrors):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=path.parent) as tmp:
                pooch.get_logger().info("Downloading %s to %s", url, path)
                fetch(url, str(Path(tmp)/"new"), None)
                _checked(Path(tmp)/"new", inside)
                return os.replace(Path(tmp)/"new", path)
        except (OSError, ValueError) as e:
            if path.exists(): return                            # another program was quicker
            failures.append(f"- {url}\n  {type(e).__name__}: {e}")
    raise RuntimeError("\n".join([f"no mirror sent {file}:", *failures, "By hand: get it from one "
                                  f"of these addresses and put it at {path}. Unpacked, its sha256 "
                                  f"must be {inside}"]))

def _checked(path: Path, sha256: str) -> bytes:
    "The unpacked bytes of `path`, if they are the right ones: what was summed is what is opened."
    data = _unpack(path)
    if (got := hashlib.sha256(data).hexdigest()) != sha256:
        raise ValueError(f"{path} is damaged or was changed: unpacked, it has {len(data):,} bytes "
                         f"with sha256 {got}, wanted {sha256}.")
    return data

def _known(file: str, data_dir: str | Path | None) -> tuple[bytes, Path]:
    "The checked bytes of the known `file`, and where it is; downloaded if no folder has it."
    path = next((folder/file for folder in _folders(data_dir) if (folder/file).exists()), None)
    if path is None:
        folder = Path(data_dir or os.environ.get("FDL_DATA") or pooch.os_cache("fdl"))
        path = folder.expanduser()/file
        _download(file, path)
    try: return _checked(path, _KNOWN[file][0]), path
    except ValueError as e:
        raise RuntimeError(f"{e} Nothing in it was run. Delete it and call again.") from None

def _own(name: str, file: str, data_dir: str | Path | None) -> tuple[bytes, Path]:
    "The bytes of `file`, or of it with .gz, in the folder `name`, and where it is."
    folders = [folder/name for folder in _folders(data_dir)]
    for folder in filter(Path.is_dir, folders):
        for path in (folder/file, folder/f"{file}.gz"):
            if path.is_file(): return _unpack(path), path
        raise FileNotFoundError(f"{folder} has no file {file} or {file}.gz: a set has four files")
    raise ValueError("name must be 'mnist', 'fashion_mnist' or a folder with four IDX files of "
                     f"your own, not {name!r}; there is no {', '.join(map(str, folders))}")

def _pair(images: tuple[bytes, Path], labels: tuple[bytes, Path]) -> tuple[Tensor, Tensor]:
    "The images (n, rows*cols) as floats in [0, 1) and the labels (n,) as integers."
    x, y = _parse_idx(*images), _parse_idx(*labels)
    if x.ndim != 3 or y.shape != x.shape[:1]:
        raise ValueError(f"{images[1]} has the shape {tuple(x.shape)}, wanted (n, rows, cols), and "
                         f"{labels[1]} has {tuple(y.shape)}, wanted {tuple(x.shape[:1])}")
    return x.flatten(1).float().div_(256), y.long()

def _split(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    "All but the last sixth, and that; in an order drawn first where the set is sorted by class."
    n, runs = len(x) - len(x)//6, 1 + int(y.diff().count_nonzero())
    if set(y[:n].tolist()) != set(y[n:].tolist()) and 2*runs <= len(y):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        x, y = x[order], y[order]
    return [(x[:n], y[:n]), (x[n:], y[n:])]

def load_mnist(name: str = "mnist", data_dir: str | Path | None = None,
               device: torch.device | str | None = None) -> tuple[tuple[Tensor, Tensor], ...]:
    """The training, validation and test set of `name`: "mnist", "fashion_mnist" or a folder of IDX
    files.

    Looks in `data_dir`, `$FDL_DATA`, the course's `data/` and the user's cache. A known set that is
    nowhere is downloaded to the first of these that is given, else to the cache. Of IDX files the
    last sixth of the training set is the validation set; a set sorted by class is shuffled first.

    Shapes: three pairs `x` (n, rows*cols) float32 in [0, 1) and `y` (n,) int64, on `device`
    (default: CPU); for MNIST n is 50,000, 10,000 and 10,000 and rows*cols is 784.
    Raises `ValueError` for an unknown `name` or a bad IDX file, `FileNotFoundError` if a file of
    your own is missing, `RuntimeError` if a known file is not the right one (nothing in it is run)
    or no mirror has it.
    Source: LeCun, Bottou, Bengio and Haffner, Gradient-based learning (1998).
    """
    if name == "mnist":
        arrays = pickle.loads(_known("mnist.pkl.gz", data_dir)[0], encoding="latin1")
        splits = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in arrays]
    else:
        files = [f"{part}-{kind}-ubyte" for part in ("train", "t10k")
                 for kind in ("images-idx3", "labels-idx1")]
        found = [_known(f"{name}/{file}.gz", data_dir) if name == "fashion_mnist"
                 else _own(name, file, data_dir) for file in files]
        splits = [*_split(*_pair(*found[:2])), _pair(*found[2:])]
        if splits[0][0].shape[1] != splits[2][0].shape[1]:
            raise ValueError(f"{found[2][1]} has {splits[2][0].shape[1]} pixels an image, "
                             f"{found[0][1]} has {splits[0][0].shape[1]}")
    return tuple((x.to(device), y.to(device)) for x, y in splits)
