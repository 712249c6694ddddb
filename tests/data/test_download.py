"""The downloader against a small server: good, damaged, missing, interrupted, resumed files."""

import contextlib
import hashlib
import http.server
import io
import shutil
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
from helpers import ROOT

from swift_hydra.data import download as download_module
from swift_hydra.data.download import LOCAL_SUMS
from swift_hydra.settings import InputError

pytest.importorskip("pooch", reason="the downloader needs pooch: pip install pooch")

# With and without a sum in the made table below.
GLASS = "14_glass.npz"
UNKNOWN = "18_Ionosphere.npz"


def made(seed, rows=3000):
    """The bytes of an npz; numpy stamps no time, so they are the same on every call."""
    rng, buffer = np.random.RandomState(seed), io.BytesIO()
    np.savez(buffer, X=rng.rand(rows, 4), y=(np.arange(rows) % 10 == 0).astype(int))
    return buffer.getvalue()


FILES = {GLASS: made(0), UNKNOWN: made(1), "29_Pima.npz": made(2)}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; honours Range if ``server.ranges``; breaks off once after
    ``server.cut`` bytes; with ``server.pause`` a byte each so many seconds, with ``server.endless``
    more than it said, or a length that it does not say; with ``server.drip`` its headers never end,
    with ``server.chunk`` the line before a piece of the body.
    """

    def do_GET(self):
        server, name = self.server, self.path.rsplit("/", 1)[1]
        content, asked = server.files.get(name), self.headers.get("Range")
        server.log.append((name, asked))
        if content is None:
            self.send_error(404)
            return
        with contextlib.suppress(OSError):  # the other side has given up
            if server.drip:
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
            if server.chunk:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;")
            while server.drip or server.chunk:
                self.wfile.write(b"x")
                time.sleep(0.05)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if not server.endless:
            self.send_header("Content-Length", server.length or str(len(content) - start))
        self.end_headers()
        cut, server.cut = server.cut, None
        rest = content[start:] if cut is None else content[start : start + cut]
        with contextlib.suppress(OSError):  # the other side has given up
            while server.endless:
                self.wfile.write(bytes(4096))
            if not server.pause:
                self.wfile.write(rest)
                return
            for i in range(len(rest)):
                self.wfile.write(rest[i : i + 1])
                time.sleep(server.pause)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.files, httpd.ranges, httpd.cut, httpd.log = dict(FILES), True, None, []
    httpd.pause, httpd.endless, httpd.drip, httpd.length = 0, False, False, None
    httpd.chunk = False
    httpd.url = f"http://127.0.0.1:{httpd.server_address[1]}/data"
    thread = threading.Thread(
        target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def write_table(path):
    rows = [
        "number,name,rows,features,anomalies,anomaly_percent,category,duplicates,"
        "constant_columns,sha256,files"
    ]
    for name in FILES:
        number, title = name[:-4].split("_")
        sha = "" if name == UNKNOWN else hashlib.sha256(FILES[name]).hexdigest()
        rows.append(f"{number},{title},,,,,,,,{sha},Classical/{name}")
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "datasets.csv"
    write_table(path)
    return path


@pytest.fixture
def download(listing):
    return partial(download_module.download, listing=listing)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_good_file_is_fetched_once(server, tmp_path, capsys, download):
    for name in ("glass", "14_GLASS", "14_glass.npz"):
        assert download(name, server.url, tmp_path) == [tmp_path / GLASS]
    assert (tmp_path / GLASS).read_bytes() == FILES[GLASS] and names(tmp_path) == [GLASS]
    assert server.log == [(GLASS, None)]  # the second and third time it was there
    out = capsys.readouterr().out
    assert (
        f"done, {len(FILES[GLASS])} bytes, SHA256 as recorded" in out
        and "already there, SHA256 as recorded" in out
    )


def test_damaged_file_is_refused_and_removed(server, tmp_path, download):
    server.files[GLASS] = FILES[GLASS][:-1] + b"x"
    with pytest.raises(InputError, match=r"another SHA256 than recorded.*refused and removed"):
        download("glass", server.url, tmp_path)
    assert names(tmp_path) == []


def test_what_is_there_survives_a_damaged_download(server, tmp_path, download):
    (tmp_path / GLASS).write_bytes(b"my own version")
    server.files[GLASS] = b"worse"
    with pytest.raises(InputError, match="refused and removed"):
        download("glass", server.url, tmp_path)
    assert (tmp_path / GLASS).read_bytes() == b"my own version" and names(tmp_path) == [GLASS]
    server.files[GLASS] = FILES[GLASS]
    download("glass", server.url, tmp_path)
    assert (tmp_path / GLASS).read_bytes() == FILES[GLASS]


def test_missing_file(server, tmp_path, download):
    del server.files[GLASS]
    with pytest.raises(
        InputError, match=r"14_glass.npz: there is no such file \(HTTP 404 at http://127.*--source"
    ):
        download("glass", server.url + "/", tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["glass", "Ionosphere"])  # with a known sum, and without
def test_a_broken_address_or_length_is_not_taken_for_another_sum(server, tmp_path, name, download):
    with pytest.raises(InputError, match=r"failed \(InvalidURL\) .* check the address or --source"):
        download(name, "http://[::1", tmp_path)
    server.length = "9" * 5000  # of too many digits for Python
    with pytest.raises(InputError, match=r"failed \(ValueError\) .* check the address or --source"):
        download(name, server.url, tmp_path)
    assert names(tmp_path) == []


def test_interrupted_download_goes_on(server, tmp_path, capsys, download):
    server.cut = 20_000
    with pytest.raises(InputError, match=r"with 20000 bytes on disk: the same command goes on"):
        download("glass", server.url, tmp_path)
    assert names(tmp_path) == [f"{GLASS}.part"]
    download("glass", server.url, tmp_path)
    assert server.log == [(GLASS, None), (GLASS, "bytes=20000-")]
    assert (tmp_path / GLASS).read_bytes() == FILES[GLASS] and names(tmp_path) == [GLASS]
    assert "goes on at byte 20000" in capsys.readouterr().out


def test_without_ranges_it_starts_again(server, tmp_path, download):
    server.ranges = False
    (tmp_path / f"{GLASS}.part").write_bytes(b"a wrong beginning")
    download("glass", server.url, tmp_path)
    assert (tmp_path / GLASS).read_bytes() == FILES[GLASS] and len(server.log) == 1


@pytest.mark.parametrize("part", [b"a wrong beginning", FILES[GLASS], FILES[GLASS] + b"too long"])
def test_a_useless_part_file_costs_a_second_try_only(server, tmp_path, part, download):
    (tmp_path / f"{GLASS}.part").write_bytes(part)
    download("glass", server.url, tmp_path)
    assert (
        (tmp_path / GLASS).read_bytes() == FILES[GLASS]
        and names(tmp_path) == [GLASS]
        and len(server.log) == 2
    )


def test_unknown_sum_is_recorded_then_checked(server, tmp_path, capsys, download):
    download("Ionosphere", server.url, tmp_path)
    sha = hashlib.sha256(FILES[UNKNOWN]).hexdigest()
    assert (tmp_path / LOCAL_SUMS).read_text() == f"{sha}  {UNKNOWN}\n" and names(tmp_path) == [
        UNKNOWN,
        LOCAL_SUMS,
    ]
    assert (
        "no published SHA256: that of the first download is in SHA256SUMS.local"
        in capsys.readouterr().out
    )
    download("Ionosphere", server.url, tmp_path)
    assert len(server.log) == 1
    (tmp_path / UNKNOWN).unlink()
    server.files[UNKNOWN] = made(9)  # a good archive, but another one
    with pytest.raises(InputError, match=r"delete its line in .*SHA256SUMS\.local"):
        download("Ionosphere", server.url, tmp_path)
    assert names(tmp_path) == [LOCAL_SUMS]


def test_an_error_page_is_not_recorded_as_data(server, tmp_path, download):
    server.files[UNKNOWN] = b"<html>please log in</html>"
    with pytest.raises(InputError, match="sent no npz archive: refused and removed"):
        download("Ionosphere", server.url, tmp_path)
    assert names(tmp_path) == []


def test_file_of_unknown_sum_already_there(server, tmp_path, download):
    (tmp_path / UNKNOWN).write_bytes(FILES[UNKNOWN])
    download("Ionosphere", server.url, tmp_path)
    assert server.log == [] and names(tmp_path) == [UNKNOWN, LOCAL_SUMS]
    (tmp_path / LOCAL_SUMS).unlink()
    (tmp_path / UNKNOWN).write_bytes(b"damaged")
    download("Ionosphere", server.url, tmp_path)
    assert (tmp_path / UNKNOWN).read_bytes() == FILES[UNKNOWN]


def test_a_server_that_hardly_sends_is_given_up(server, tmp_path, monkeypatch, download):
    monkeypatch.setattr(download_module, "PATIENCE", 0.5)
    server.pause = 0.02
    with pytest.raises(InputError, match=r"bytes a second: given up with .* goes on from there"):
        download("glass", server.url, tmp_path)
    assert not (tmp_path / GLASS).exists()
    server.pause = 0
    download("glass", server.url, tmp_path)
    assert (tmp_path / GLASS).read_bytes() == FILES[GLASS]
    assert server.log[-1][1].startswith("bytes=")  # what had come was not fetched again


def test_a_server_whose_headers_never_end_is_given_up(server, tmp_path, monkeypatch, download):
    monkeypatch.setattr(download_module, "ANSWER", 0.5)
    server.drip = True
    with pytest.raises(InputError, match=r"sends no whole answer within 0.5 seconds: try again"):
        download("glass", server.url, tmp_path)
    server.drip = False
    assert names(tmp_path) == []


def test_a_server_whose_body_never_begins_is_given_up(server, tmp_path, monkeypatch, download):
    monkeypatch.setattr(download_module, "ANSWER", 0.5)
    server.chunk = True
    start = time.monotonic()
    with pytest.raises(InputError, match=r"sends no data within 0.5 seconds: try again"):
        download("glass", server.url, tmp_path)
    assert time.monotonic() - start < 10 and not (tmp_path / GLASS).exists()
    server.chunk = False


def test_a_killed_download_leaves_nothing_that_stays(server, tmp_path, download):
    server.pause = 0.02
    code = "from swift_hydra.data.download import download; "
    code += f"download('Ionosphere', {server.url!r}, {str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    part = tmp_path / f"{UNKNOWN}.part"
    while not (part.exists() and part.stat().st_size):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    server.pause = 0
    download("Ionosphere", server.url, tmp_path)
    assert names(tmp_path) == [UNKNOWN, LOCAL_SUMS]


def test_a_server_that_never_ends_is_given_up(server, tmp_path, monkeypatch, download):
    monkeypatch.setattr(download_module, "MOST_BYTES", 10**6)
    server.endless = True
    with pytest.raises(InputError, match="sends more than 1000000 bytes"):
        download("glass", server.url, tmp_path)
    assert not (tmp_path / GLASS).exists()


def test_what_is_too_long_by_its_own_word_is_refused_at_once(
    server, tmp_path, monkeypatch, download
):
    monkeypatch.setattr(download_module, "MOST_BYTES", len(FILES[GLASS]) // 5)
    with pytest.raises(InputError, match=f"has {len(FILES[GLASS])} bytes, more than"):
        download("glass", server.url, tmp_path)
    assert not list(tmp_path.glob("*.part"))


def test_all_goes_on_after_a_failure(server, tmp_path, capsys, download):
    del server.files[GLASS]
    with pytest.raises(
        InputError, match=r"1 of 3 files failed: 14_glass.npz: see the lines"
    ) as caught:
        download("all", server.url, tmp_path)
    assert (
        "\n" not in str(caught.value)
        and "FAILED 14_glass.npz: there is no such file (HTTP 404" in capsys.readouterr().out
    )
    assert names(tmp_path) == [UNKNOWN, "29_Pima.npz", LOCAL_SUMS]
    server.files[GLASS] = FILES[GLASS]
    assert [p.name for p in download("all", server.url, tmp_path)] == list(FILES)
    assert len(server.log) == 4


def test_embedded_file_counts_as_there(server, tmp_path, download):
    (tmp_path / GLASS).write_bytes(b"the same table in other bytes")
    embedded = {GLASS: hashlib.sha256(b"the same table in other bytes").hexdigest()}
    download("glass", server.url, tmp_path, embedded=embedded)
    assert server.log == []


def test_mistakes_in_the_arguments(server, tmp_path, monkeypatch, download):
    with pytest.raises(InputError, match="'nosuch' is no ADBench name"):
        download("glass,nosuch", server.url, tmp_path)
    with pytest.raises(InputError, match="there is no name"):
        download(" , ", server.url, tmp_path)
    with pytest.raises(InputError, match=r"source='ftp://x' is no HTTP address"):
        download("glass", "ftp://x", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(
        InputError,
        match=rf"connection to {nobody}/14_glass.npz failed \(ConnectionError\)",
    ):
        download("glass", nobody, tmp_path)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match="pip install pooch"):
        download("glass", server.url, tmp_path)
    assert server.log == []


def test_at_the_shell(server, tmp_path):
    """In a copy of the scripts, since the command writes beside them."""
    for script in ("dataloader.py", "SwiftHydra.py"):
        shutil.copy(ROOT / script, tmp_path)
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "swift_hydra", tmp_path / "swift_hydra", ignore=without)
    (tmp_path / "ADBenchDatasets").mkdir()
    write_table(tmp_path / "ADBenchDatasets" / "datasets.csv")

    def shell(*args):
        command = [sys.executable, str(tmp_path / "dataloader.py"), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    result = shell("--download", "glass, Pima", "--source", server.url)
    assert result.returncode == 0 and result.stderr == "" and result.stdout.count("done, ") == 2
    result = shell("glass")
    assert result.returncode == 0 and "rows              3000" in result.stdout

    server.files[UNKNOWN] = None
    for name, count in (("Ionosphere", 0), ("all", 2)):
        result = shell("--download", name, "--source", server.url)
        assert (
            result.returncode == 2
            and result.stderr.count("\n") == 1
            and "Traceback" not in result.stderr
        )
        assert (
            "HTTP 404" in (result.stderr if name == "Ionosphere" else result.stdout)
            and result.stdout.count("already there") == count
        ), result


def test_recorded_sums_are_the_users_and_outlive_a_damaged_line(server, tmp_path, download):
    (tmp_path / LOCAL_SUMS).write_bytes(b"abc  other.npz\n\xff\n")
    download(UNKNOWN[:-4], server.url, tmp_path)
    assert UNKNOWN in (tmp_path / LOCAL_SUMS).read_text()
    assert "abc  other.npz" in (tmp_path / LOCAL_SUMS).read_text()
    (tmp_path / "new").touch()
    (tmp_path / LOCAL_SUMS).unlink()
    download(UNKNOWN[:-4], server.url, tmp_path)
    modes = {(tmp_path / name).stat().st_mode for name in (LOCAL_SUMS, "new")}
    assert len(modes) == 1
