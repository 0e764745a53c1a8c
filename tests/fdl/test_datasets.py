"""`load_mnist` on bad days: damaged and hostile files, broken mirrors, Ctrl-C, two programs at once.

Every download here is from a server on 127.0.0.1. To be quick, the tests replace the table of known files
by small ones of the same kind; one test loads the real file that the course ships.
"""
import gzip
import hashlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fdl import datasets
from fdl.datasets import load_mnist, read_idx

FILE = "mnist.pkl.gz"
REPO = Path(__file__).parents[2]
POSIX = os.name == "posix"


# A small MNIST, and the places of the search.

def small_splits():
    "Three pairs of arrays of random pixels, so that gzip cannot shrink them to a single network packet."
    rng = np.random.default_rng(0)
    return tuple(((rng.integers(0, 256, (n, 784)) / 256).astype(np.float32), rng.integers(0, 10, n).astype(np.int64))
                 for n in (40, 8, 9))


def is_small(splits):
    expected = tuple((torch.from_numpy(x), torch.from_numpy(y)) for x, y in small_splits())
    assert_close(tuple(splits), expected, rtol=0, atol=0)


@pytest.fixture(scope="module")
def good() -> bytes:
    "The bytes that count as the right mnist.pkl.gz."
    return gzip.compress(pickle.dumps(small_splits(), protocol=2), mtime=0)


def inside(data) -> str:
    "The SHA-256 of what is in these bytes, out of gzip."
    return hashlib.sha256(gzip.decompress(data)).hexdigest()


def know(monkeypatch, data, mirrors=(), file=FILE):
    "Enters `data` into the tables of known files."
    monkeypatch.setitem(datasets._SHA256, Path(file).name.removesuffix(".gz"), inside(data))
    monkeypatch.setitem(datasets._MIRRORS, "fashion_mnist" if "/" in file else "mnist", tuple(mirrors) or ("nowhere",))


@pytest.fixture
def places(tmp_path, monkeypatch):
    "The four folders of the search, all empty."
    for folder in ("arg", "env", "cache", "course/nbs", "course/data"): (tmp_path/folder).mkdir(parents=True)
    (tmp_path/"course"/"nbs"/"01_mnist.ipynb").touch()
    init = tmp_path/"course"/"fdl"/"__init__.py"
    monkeypatch.setattr(datasets, "find_spec", lambda name: SimpleNamespace(origin=str(init)))
    monkeypatch.setattr(datasets.pooch, "os_cache", lambda name: tmp_path/"cache")
    monkeypatch.setattr(datasets, "_TIMEOUT", 5)
    monkeypatch.setenv("FDL_DATA", str(tmp_path/"env"))
    for name in ("NO_PROXY", "no_proxy"): monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(arg=tmp_path/"arg", env=tmp_path/"env", course=tmp_path/"course"/"data", cache=tmp_path/"cache")


def files_in(folder) -> list[str]:
    "Everything in `folder`, at any depth."
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*"))


class Trap:
    "An object whose pickle makes a folder when it is opened."
    def __init__(self, trace): self.trace = str(trace)
    def __reduce__(self): return os.mkdir, (self.trace,)


# A server that misbehaves on request: the first part of the path says how.

class Server:
    def __init__(self, data):
        self.data, self.asked, self.on_request = data, [], lambda: None
        self.closing, self.both = threading.Event(), threading.Barrier(2)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args): pass

            def do_GET(self):
                outer.asked.append(self.path)
                outer.on_request()
                try: outer.answer(self, self.path.split("/")[1])
                except OSError: pass  # the other side hung up

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, request, how):
        data = b"<html>Please log in</html>" if how == "wrong" else b"" if how == "empty" else self.data
        if how == "404": return request.send_error(404)
        if how == "together": self.both.wait(timeout=60)
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        half = len(data)//2 if how in ("drop", "stall", "trickle") else len(data)
        request.wfile.write(data[:half])
        request.wfile.flush()
        if how == "stall": self.closing.wait(20)
        if how == "trickle":
            for i in range(half, len(data)):
                if self.closing.wait(0.02): break
                request.wfile.write(data[i:i + 1])

    def close(self):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(good):
    s = Server(good)
    yield s
    s.close()


@pytest.fixture
def down() -> str:
    "An address at which nobody listens."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/{{file}}"


# The real thing.

def test_the_shipped_file():
    splits = load_mnist(data_dir=REPO/"data")
    assert [(tuple(x.shape), x.dtype, tuple(y.shape), y.dtype) for x, y in splits] == [
        ((n, 784), torch.float32, (n,), torch.int64) for n in (50_000, 10_000, 10_000)]
    for x, y in splits:
        assert x.min() == 0 and x.max() == 255/256 and y.unique().tolist() == list(range(10))
        assert x.device.type == y.device.type == "cpu"
    assert splits[0][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]


def test_the_readme_of_the_data_gives_size_and_checksum():
    text, data = (REPO/"data"/"README.md").read_text(encoding="utf-8"), (REPO/"data"/FILE).read_bytes()
    assert f"{len(data):,}" in text and hashlib.sha256(data).hexdigest() in text


def test_the_table_of_known_files():
    assert set(datasets._SHA256) == {"mnist.pkl", *PARTS}
    for sha256 in datasets._SHA256.values(): assert len(bytes.fromhex(sha256)) == 32
    for mirrors in datasets._MIRRORS.values():
        urls = [mirror.format(file="file.gz") for mirror in mirrors]
        assert all(url.startswith("http") for url in urls) and len({url.split("/")[2] for url in urls}) >= 2      # hosts


# Where it looks.

@pytest.mark.parametrize("first", range(4))
def test_the_first_place_that_has_the_file_wins(places, monkeypatch, good, first):
    know(monkeypatch, good)
    order = [places.arg, places.env, places.course, places.cache]
    (order[first]/FILE).write_bytes(good)
    for later in order[first + 1:]: (later/FILE).write_bytes(b"bad")
    is_small(load_mnist(data_dir=places.arg))

    (order[first]/FILE).write_bytes(b"bad")
    for later in order[first + 1:]: (later/FILE).write_bytes(good)
    with pytest.raises(ValueError) as e: load_mnist(data_dir=str(places.arg))
    assert str(order[first]/FILE) in str(e.value)


def test_an_installed_package_has_no_data_folder(places, monkeypatch, good, tmp_path):
    know(monkeypatch, good)
    monkeypatch.chdir(tmp_path.anchor)      # no course lies above it, wherever the temporary files are
    (places.course.parent/"nbs"/"01_mnist.ipynb").unlink()
    (places.course/FILE).write_bytes(b"bad")
    (places.cache/FILE).write_bytes(good)
    is_small(load_mnist())


@pytest.mark.parametrize("here", ["course", "course/nbs", "course/data/deeper"])
def test_an_installed_package_finds_the_course_that_it_runs_in(places, monkeypatch, good, tmp_path, here):
    know(monkeypatch, good)
    init = tmp_path/"site-packages"/"fdl"/"__init__.py"
    monkeypatch.setattr(datasets, "find_spec", lambda name: SimpleNamespace(origin=str(init)))
    (places.course/FILE).write_bytes(good)
    (places.cache/FILE).write_bytes(b"bad")
    (tmp_path/here).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path/here)
    is_small(load_mnist())


def test_the_course_of_the_package_comes_before_the_one_that_it_runs_in(places, monkeypatch, good, tmp_path):
    know(monkeypatch, good)
    (tmp_path/"other"/"nbs").mkdir(parents=True)
    (tmp_path/"other"/"nbs"/"01_mnist.ipynb").touch()
    (tmp_path/"other"/"data").mkdir()
    (tmp_path/"other"/"data"/FILE).write_bytes(b"bad")
    (places.course/FILE).write_bytes(good)
    monkeypatch.chdir(tmp_path/"other")
    is_small(load_mnist())


@pytest.mark.parametrize("name", ["mnist.pkl", "mnist.pkl.gz"])
def test_packed_or_not(places, monkeypatch, good, name):
    know(monkeypatch, good)
    (places.arg/name).write_bytes(good if name.endswith(".gz") else gzip.decompress(good))
    is_small(load_mnist(data_dir=places.arg))


@pytest.mark.parametrize("where", ["arg", "env", "cache"])
def test_where_a_download_goes(places, monkeypatch, good, server, where, capsys):
    know(monkeypatch, good, [server.url + "/good/{file}"])
    new = places.cache if where == "cache" else getattr(places, where)/"made"/"on demand"
    if where == "cache": monkeypatch.delenv("FDL_DATA")
    if where == "env": monkeypatch.setenv("FDL_DATA", str(new))
    data_dir = new if where == "arg" else None
    is_small(load_mnist(data_dir=data_dir))
    assert server.asked == [f"/good/{FILE}"] and files_in(new) == [FILE]
    if not os.environ.get("TQDM_DISABLE"): assert "B/s" in capsys.readouterr().err  # the progress bar
    if POSIX:  # others may read it, as any file that this user makes
        (new/"any").touch()
        assert (new/FILE).stat().st_mode == (new/"any").stat().st_mode
    is_small(load_mnist(data_dir=data_dir))
    assert len(server.asked) == 1  # the second call finds the file


# Mirrors that fail.

@pytest.mark.parametrize("how", ["drop", "wrong", "empty", "404", "stall", "down"])
def test_a_bad_mirror_is_passed_over(places, monkeypatch, good, server, down, how):
    know(monkeypatch, good, [down if how == "down" else f"{server.url}/{how}/{{file}}", server.url + "/good/{file}"])
    if how == "stall": monkeypatch.setattr(datasets, "_TIMEOUT", 0.3)
    is_small(load_mnist(data_dir=places.arg))
    assert files_in(places.arg) == [FILE] and server.asked[-1] == f"/good/{FILE}"


def test_all_mirrors_fail(places, monkeypatch, good, server, down):
    know(monkeypatch, good, [down] + [f"{server.url}/{how}/{{file}}" for how in ("404", "drop", "wrong", "stall")])
    monkeypatch.setattr(datasets, "_TIMEOUT", 0.3)
    with pytest.raises(RuntimeError) as e: load_mnist(data_dir=places.arg)
    for part in (down.format(file=FILE), f"{server.url}/404/{FILE}", "404", f"{server.url}/drop/{FILE}",
                 f"{server.url}/wrong/{FILE}\n  ", "26 bytes",
                 f"{server.url}/stall/{FILE}", "timed out", "By hand", inside(good),
                 str(places.arg/FILE)): assert part in str(e.value), part
    assert files_in(places.arg) == []


def test_a_mirror_that_sends_a_hostile_pickle(places, monkeypatch, good, server, tmp_path):
    server.data = gzip.compress(pickle.dumps(Trap(tmp_path/"it_ran")))
    know(monkeypatch, good, [server.url + "/good/{file}"])
    with pytest.raises(RuntimeError, match="no mirror sent"): load_mnist(data_dir=places.arg)
    assert not (tmp_path/"it_ran").exists() and files_in(places.arg) == []


def test_a_place_that_cannot_be_written(places, monkeypatch, good, server):
    know(monkeypatch, good, [server.url + "/good/{file}"])
    (places.arg/"file").touch()  # a file where a folder should be made
    with pytest.raises(OSError, match="file") as e: load_mnist(data_dir=places.arg/"file"/"folder")
    assert str(places.arg/"file") in str(e.value) and server.asked == []


# Other programs.

CHILD = """
import signal, sys
from types import SimpleNamespace
for name in ("SIGINT", "SIGBREAK"):
    if hasattr(signal, name): signal.signal(getattr(signal, name), signal.default_int_handler)
from fdl import datasets
inner, url, folder = sys.argv[1:]
datasets._SHA256["mnist.pkl"], datasets._MIRRORS["mnist"] = inner, (url,)
datasets.find_spec = lambda name: SimpleNamespace(origin=f"{folder}/fdl/__init__.py")          # no course lies around it
print(len(datasets.load_mnist(data_dir=folder)[0][0]))
"""


def child(good, url, folder):
    "A program of its own that loads the small set from `url` into `folder`."
    env = dict(os.environ, PYTHONPATH=str(Path(datasets.__file__).parents[1]), XDG_CACHE_HOME=str(folder/"cache"))
    flags = 0 if POSIX else subprocess.CREATE_NEW_PROCESS_GROUP
    command = [sys.executable, "-c", CHILD, inside(good), url, str(folder)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, creationflags=flags, cwd=folder)


def test_ctrl_c_leaves_nothing(places, good, server):
    process = child(good, server.url + "/trickle/{file}", places.arg)
    try:
        deadline = time.monotonic() + 60
        while not any(name.endswith("/new") for name in files_in(places.arg)):  # until the download has begun
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT if POSIX else signal.CTRL_BREAK_EVENT)
        _, err = process.communicate(timeout=30)
    finally: process.kill()
    assert process.returncode != 0 and "KeyboardInterrupt" in err
    assert files_in(places.arg) == []


def test_two_programs_at_once(places, good, server):
    pair = [child(good, server.url + "/together/{file}", places.arg) for _ in range(2)]
    try: answers = [p.communicate(timeout=90) for p in pair]
    finally:
        for p in pair: p.kill()
    assert [out.strip() for out, _ in answers] == ["40", "40"], answers
    assert len(server.asked) == 2 and files_in(places.arg) == [FILE]
    assert (places.arg/FILE).read_bytes() == good


# Files that are not what they seem.

def bad_files(good, trace):
    "Damaged and hostile contents for mnist.pkl.gz."
    hostile = gzip.compress(pickle.dumps(Trap(trace)))
    return {"cut off": good[:-100], "one byte changed": good[:-9] + bytes(b ^ 1 for b in good[-9:-8]) + good[-8:],
            "empty": b"", "longer": good + b"more", "an error page": b"<html></html>", "hostile": hostile,
            "hostile, plain": gzip.decompress(hostile)}


@pytest.mark.parametrize("where", ["arg", "env", "course", "cache"])
@pytest.mark.parametrize("kind", bad_files(b"", ""))
def test_a_bad_file_is_refused(places, monkeypatch, good, tmp_path, kind, where):
    know(monkeypatch, good)
    bad = bad_files(good, tmp_path/"it_ran")[kind]
    path = getattr(places, where)/FILE
    path.write_bytes(bad)
    with pytest.raises(ValueError) as e: load_mnist(data_dir=places.arg)
    for part in (str(path), "damaged", "Delete it"): assert part in str(e.value), part
    assert not (tmp_path/"it_ran").exists() and path.read_bytes() == bad


def test_the_trap_would_have_worked(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path/"it_ran")))
    assert (tmp_path/"it_ran").exists()


def test_the_bytes_that_are_checked_are_the_bytes_that_are_opened(places, monkeypatch, good, tmp_path):
    "A file that turns hostile after it was read does no harm."
    know(monkeypatch, good)
    (places.arg/FILE).write_bytes(good)
    hostile, read = gzip.compress(pickle.dumps(Trap(tmp_path/"it_ran"))), Path.read_bytes

    def read_then_swap(path):
        data = read(path)
        (places.arg/FILE).write_bytes(hostile)
        return data

    monkeypatch.setattr(Path, "read_bytes", read_then_swap)
    is_small(load_mnist(data_dir=places.arg))
    assert not (tmp_path/"it_ran").exists()


# IDX files.

def idx(array) -> bytes:
    "`array` as unsigned bytes in the IDX format."
    array = np.asarray(array).astype(np.uint8)
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


PARTS = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def own_set(folder, n_train=60, n_test=10, rows=4, cols=3, ending=""):
    "Four IDX files in `folder`; returns the arrays they hold."
    rng = np.random.default_rng(1)
    shapes = (n_train, rows, cols), (n_train,), (n_test, rows, cols), (n_test,)
    held = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    folder.mkdir(parents=True)
    for name, array in zip(PARTS, held):
        (folder/f"{name}{ending}").write_bytes(gzip.compress(idx(array)) if ending else idx(array))
    return held


ONE = idx(np.arange(24).reshape(2, 3, 4))
PACKED = gzip.compress(ONE)


@pytest.mark.parametrize("data, said", [
    (b"", "its 0 bytes"), (ONE[:3], "its 3 bytes begin with 00 00 08,"), (ONE[:15], "its 15 bytes"),
    (b"\0\1" + ONE[2:], "00 01 08 03"), (b"\0\0\x0d" + ONE[3:], "00 00 0d 03"), (b"PK\3\4" + ONE, "50 4b 03 04"),
    (ONE[:-1], "39 bytes begin with 00 00 08 03"), (ONE[:-1], "(2, 3, 4) need 40 bytes"), (ONE + b"\0", "its 41 bytes"),
    (ONE[:16], "need 40 bytes"), (b"\0\0\x08\x03" + b"\xff"*12, "or is damaged"),
    (PACKED[:-1], "damaged: its"), (PACKED[:20], "damaged: its"), (PACKED[:2], "damaged: its"),
    (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "damaged: its"), (PACKED + b"more", "damaged: its"),
    (gzip.compress(b"text"), "74 65 78 74"),
], ids=lambda x: x if isinstance(x, str) else "")  # gzip writes the time into its header
def test_bad_idx_files(tmp_path, data, said):
    path = tmp_path/"file"
    path.write_bytes(data)
    with pytest.raises(ValueError) as e: read_idx(path)
    assert said in str(e.value) and str(path) in str(e.value)


@pytest.mark.filterwarnings("error")  # torch warns about memory that must not be written
@pytest.mark.parametrize("shape", [(), (5,), (0,), (2, 3), (4, 3, 2), (1, 2, 3, 4), (0, 28, 28)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_read_idx(tmp_path, shape, pack):
    array = np.asarray(np.random.default_rng(0).integers(0, 256, shape), np.uint8)
    (tmp_path/"file").write_bytes(pack(idx(array)))
    got = read_idx(str(tmp_path/"file"))
    assert_close(got, torch.tensor(array))
    got += 1  # its memory is its own


@pytest.mark.parametrize("n, n_train", [(60, 50), (70, 58), (7, 5), (6, 5), (5, 4), (2, 1)])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_set_of_your_own(places, n, n_train, ending):
    x, y, x_test, y_test = own_set(places.arg/"mine", n_train=n, ending=ending)
    splits = load_mnist("mine", data_dir=places.arg)
    for got, (x, y) in zip(splits, ((x[:n_train], y[:n_train]), (x[n_train:], y[n_train:]), (x_test, y_test))):
        assert_close(got, (torch.tensor(x.reshape(len(x), 12)).float() / 256, torch.tensor(y).long()), rtol=0, atol=0)


@pytest.mark.parametrize("where", ["arg", "env", "course", "cache"])
def test_where_a_set_of_your_own_is_found(places, where):
    own_set(getattr(places, where)/"mine")
    assert load_mnist("mine", data_dir=places.arg)[2][0].shape == (10, 12)


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_device(places, device):
    own_set(places.arg/"mine")
    assert {t.device.type for pair in load_mnist("mine", places.arg, device) for t in pair} == {"meta"}


def test_an_unknown_name(places):
    with pytest.raises(FileNotFoundError) as e: load_mnist("mnits", data_dir=places.arg)
    for part in ("mnits/", "'mnist'", "'fashion_mnist'", *map(str, vars(places).values())): assert part in str(e.value)


def test_files_that_do_not_fit_together(places):
    own_set(places.arg/"mine")
    images, labels, test_images, test_labels = (places.arg/"mine"/name for name in PARTS)

    def refused(path, data, error, *said):
        before = path.read_bytes()
        path.unlink()
        if data is not None: path.write_bytes(data)
        with pytest.raises(error) as e: load_mnist("mine", data_dir=places.arg)
        for part in (path.name, *said): assert part in str(e.value)
        path.write_bytes(before)

    refused(test_labels, None, FileNotFoundError)
    refused(images, None, FileNotFoundError, "four IDX files", ".gz")
    refused(images, labels.read_bytes(), ValueError, "(60,)", "(n, rows, cols)")
    refused(labels, images.read_bytes(), ValueError, "(60, 4, 3)", "(n,)")
    refused(labels, test_labels.read_bytes(), ValueError, "(10,)", "(60, 4, 3)")
    load_mnist("mine", data_dir=places.arg)


def test_fashion_mnist_is_downloaded_checked_and_split(places, monkeypatch, server):
    _, _, x_test, y_test = own_set(places.env/"source", n_train=12, ending=".gz")
    sources = {p.name: p.read_bytes() for p in (places.env/"source").iterdir()}
    mirrors = [server.url + "/wrong/{file}", server.url + "/good/{file}"]
    for name, data in sources.items(): know(monkeypatch, data, mirrors, f"fashion_mnist/{name}")
    answer = server.answer

    def answer_by_name(request, how):
        server.data = sources[request.path.split("/")[2]]
        answer(request, how)

    server.answer = answer_by_name
    splits = load_mnist("fashion_mnist", data_dir=places.arg)
    assert [len(x) for x, _ in splits] == [10, 2, 10] and len(server.asked) == 8
    assert_close(splits[2], (torch.tensor(x_test.reshape(10, 12)) / 256, torch.tensor(y_test).long()))
    assert files_in(places.arg/"fashion_mnist") == sorted(sources)

    path = places.arg/"fashion_mnist"/"t10k-images-idx3-ubyte.gz"
    with gzip.GzipFile("a name", "wb", fileobj=path.open("wb"), mtime=1) as file: file.write(idx(x_test))
    assert path.read_bytes() != sources[path.name]
    assert_close(load_mnist("fashion_mnist", data_dir=places.arg), splits)          # the same pictures, packed with a name
    (path.with_suffix("")).write_bytes(idx(x_test))
    path.unlink()
    assert_close(load_mnist("fashion_mnist", data_dir=places.arg), splits)                            # not packed at all
    path.with_suffix("").write_bytes(idx(x_test//2))
    with pytest.raises(ValueError, match="Delete it") as e: load_mnist("fashion_mnist", data_dir=places.arg)
    assert str(path.with_suffix("")) in str(e.value)


def test_folders_where_files_should_be(places, tmp_path):
    "As some archives unpack: each file in a folder of its name; or pictures, a folder for each class."
    for name in PARTS: (places.arg/"mine"/name/name).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no mine/train-images-idx3-ubyte or"): load_mnist("mine", data_dir=places.arg)
    with pytest.raises(OSError): read_idx(tmp_path)


@pytest.mark.parametrize("labels", [[0]*20 + [1]*20 + [2]*20, [9]*20 + [4]*20 + [7]*20, [1]*30 + [0]*30, [c for c in range(10) for _ in range(6)],
                                    [c for _ in range(2) for c in range(3) for _ in range(10)]], ids=["sorted", "in another order", "two", "ten", "twice sorted"])
def test_a_set_sorted_by_class_is_drawn(places, labels):
    own_set(places.arg/"mine")
    (places.arg/"mine"/"train-labels-idx1-ubyte").write_bytes(idx(labels))
    x_all = read_idx(places.arg/"mine"/"train-images-idx3-ubyte").flatten(1).float()/256
    (x, y), (x_valid, y_valid), _ = load_mnist("mine", data_dir=places.arg)
    assert len(x) == 50 and len(y_valid) == 10 and y_valid.unique().numel() > 1 and y.unique().numel() == len(set(labels))
    rows = {tuple(row.tolist()): label for row, label in zip(x_all, labels)}
    assert [rows[tuple(row.tolist())] for row in torch.cat([x, x_valid])] == torch.cat([y, y_valid]).tolist()   # each image keeps its label
    assert_close(load_mnist("mine", data_dir=places.arg)[1][1], y_valid)                                          # the same draw each time
