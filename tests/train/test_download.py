import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from vimvol.cli.commands import app
from vimvol.errors import InputError, StorageError
from vimvol.train import download as module
from vimvol.train.download import download
from vimvol.train.published import DATASETS, RemoteFile, explain_missing

CONTENT = bytes(range(256)) * 9000


class Server(ThreadingHTTPServer):
    """Serves files with ranges, as S3 and web servers do; breaks off once where told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.break_after: int | None = None

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        body = self.server.files.get(self.path[1:])
        self.server.asked.append((self.path[1:], self.headers.get("Range")))
        if body is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        wanted, begin = self.headers.get("Range"), 0
        if wanted and self.headers.get("If-Range") == tag:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if begin >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        some, self.server.break_after = self.server.break_after, None
        self.wfile.write(body[begin : None if some is None else begin + some])
        self.close_connection = some is not None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        server.files = {"a.bin": CONTENT}
        known = RemoteFile("a.bin", server.url("a.bin"), hashlib.sha256(CONTENT).hexdigest())
        monkeypatch.setitem(DATASETS, "known", (known,))
        monkeypatch.setitem(DATASETS, "unknown", (RemoteFile("a.bin", server.url("a.bin")),))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_its_checksum_can_be_checked_by_others(server, tmp_path):
    told = []
    assert download("known", str(tmp_path / "new"), lambda *news: told.append(news)) == [tmp_path / "new" / "a.bin"]
    assert (tmp_path / "new" / "a.bin").read_bytes() == CONTENT
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"a.bin", "SHA256SUMS"}
    assert (tmp_path / "new" / "SHA256SUMS").read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  a.bin\n"
    assert told[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert [have for _, have, _ in told] == sorted(have for _, have, _ in told)
    download("known", str(tmp_path / "new"))
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["known", "unknown"])
def test_what_broke_off_goes_on(server, tmp_path, name):
    server.break_after = 1_500_000
    with pytest.raises(InputError, match=r"broke off after \d+ of 2304000 bytes|cannot be reached"):
        download(name, str(tmp_path))
    part = tmp_path / "a.bin.part"
    have = part.stat().st_size
    assert 0 < have <= 1_500_000
    assert not (tmp_path / "a.bin").exists()
    download(name, str(tmp_path))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.asked[-1] == ("a.bin", f"bytes={have}-")
    assert not part.exists()


def test_bytes_of_another_version_are_not_joined(server, tmp_path):
    server.break_after = 1_500_000
    with pytest.raises(InputError):
        download("unknown", str(tmp_path))
    server.files["a.bin"] = CONTENT[::-1]
    download("unknown", str(tmp_path))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_a_part_that_was_whole_is_kept(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    (tmp_path / "a.bin.part.etag").write_text(f'"{hashlib.md5(CONTENT).hexdigest()}"')
    download("known", str(tmp_path))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wrong_file_is_refused_and_not_kept(server, tmp_path):
    server.files["a.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(InputError, match=r"checksum .*published is"):
        download("known", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".etag")] == []


def test_a_local_copy_is_checked_and_used(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    download("known", str(tmp_path))
    download("unknown", str(tmp_path))
    assert not server.asked
    (tmp_path / "a.bin").write_bytes(CONTENT[:100])
    with pytest.raises(InputError, match=r"checksum .*published is"):
        download("known", str(tmp_path))
    with pytest.raises(InputError, match=r"checksum .*SHA256SUMS is"):
        download("unknown", str(tmp_path))
    assert (tmp_path / "a.bin").exists()


def test_a_server_that_is_not_there_and_a_file_that_is_not_there(server, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "gone", (RemoteFile("b.bin", server.url("b.bin")),))
    with pytest.raises(InputError, match=r"HTTP 404.*put a copy into .* as b\.bin"):
        download("gone", str(tmp_path))
    monkeypatch.setitem(DATASETS, "closed", (RemoteFile("b.bin", "http://127.0.0.1:9/b.bin"),))
    with pytest.raises(InputError, match=r"cannot be reached .*put a copy into .* as b\.bin") as error:
        download("closed", str(tmp_path))
    assert "\n" not in str(error.value)


def test_only_some_files(server, tmp_path):
    assert download("known", str(tmp_path), only=["a.bin"])
    with pytest.raises(InputError, match=r"no file 'c\.bin'; it has a\.bin"):
        download("known", str(tmp_path), only=["c.bin"])
    with pytest.raises(InputError, match="no data set is called 'x'; there are cremi, livecell"):
        download("x", str(tmp_path))


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        download("known", str(tmp_path / "file" / "folder"))


def archive(names: list[str]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        for name in names:
            file.writestr(name, name.encode() * 10)
    return memory.getvalue()


def test_an_archive_is_unpacked_where_it_is_not_yet(server, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "zip", (RemoteFile("i.zip", server.url("i.zip"), unpacked=("images",)),))
    server.files["i.zip"] = archive(["images/a.tif", "images/deep/b.tif"])
    download("zip", str(tmp_path))
    assert (tmp_path / "images" / "deep" / "b.tif").read_bytes() == b"images/deep/b.tif" * 10
    (tmp_path / "images" / "a.tif").write_bytes(b"half")
    download("zip", str(tmp_path))
    assert (tmp_path / "images" / "a.tif").read_bytes() == b"images/a.tif" * 10


def test_nothing_is_unpacked_outside_and_no_other_file_is_an_archive(server, tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "zip", (RemoteFile("i.zip", server.url("i.zip"), unpacked=("images",)),))
    server.files["i.zip"] = archive(["../evil"])
    with pytest.raises(InputError, match="outside of its folder"):
        download("zip", str(tmp_path / "in"))
    assert not (tmp_path / "evil").exists()
    server.files["i.zip"] = CONTENT
    with pytest.raises(InputError, match="cannot be unpacked"):
        download("zip", str(tmp_path / "other"))


def test_an_invalid_certificate_can_be_accepted_where_a_checksum_protects(server, tmp_path, monkeypatch):
    import ssl
    from urllib.error import URLError

    seen = []
    original = module.urlopen

    def picky(request, timeout, context):
        seen.append(context)
        if context is None:
            failure = ssl.SSLCertVerificationError()
            failure.verify_message = "certificate has expired"
            raise URLError(failure)
        return original(request, timeout=timeout)

    monkeypatch.setattr(module, "urlopen", picky)
    with pytest.raises(InputError, match=r"certificate has expired.*--insecure"):
        download("known", str(tmp_path))
    with pytest.raises(InputError, match="cannot be reached"):
        download("unknown", str(tmp_path), insecure=True)
    assert download("known", str(tmp_path), insecure=True)
    assert [context is None for context in seen] == [True, True, False]


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("sample_B_20160501.hdf:volumes/raw", ["vimvol download cremi", "https://cremi.org/static/data/sample_B"]),
        ("livecell_coco_val.json", ["vimvol download livecell", "livecell_coco_val.json"]),
        ("images/livecell_test_images", ["vimvol download livecell", "images.zip"]),
    ],
)
def test_a_known_file_that_is_missing_is_told_with_its_source(tmp_path, path, parts):
    with pytest.raises(InputError) as error:
        explain_missing(str(tmp_path / path))
    message = str(error.value)
    assert all(part in message for part in [*parts, f"{tmp_path}`", "root"]), message


def test_other_files_and_files_that_are_there_are_left_alone(tmp_path):
    (tmp_path / "sample_A_20160501.hdf").touch()
    explain_missing(f"{tmp_path}/sample_A_20160501.hdf:volumes/raw")
    explain_missing(f"{tmp_path}/mine.h5:raw")
    explain_missing("s3://bucket/sample_A_20160501.hdf")


def test_published_files_have_secure_addresses():
    files = [file for name in ("cremi", "livecell") for file in DATASETS[name]]
    assert all(file.url.startswith("https://") and file.url.endswith(file.name) for file in files)
    assert all(file.sha256 and len(file.sha256) == 64 for file in DATASETS["cremi"])


def test_the_command_line_fetches_and_names_the_files(server, tmp_path):
    done = CliRunner().invoke(app, ["download", "known", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.split() == ["there", str(tmp_path / "a.bin")]
    assert "2.3 of 2.3 MB" in done.stderr
    with pytest.raises(InputError, match="no data set"):
        CliRunner().invoke(app, ["download", "nothing", str(tmp_path)], catch_exceptions=False)
