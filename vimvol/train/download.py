"""The data sets of the ViM-UNet paper, from where their authors publish them.

Interrupted downloads go on where they stopped. CREMI's checksums are those that torch-em and others check; for
LIVECell none are published, so that of the first download is written to ``SHA256SUMS`` beside the files and checked
from then on.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import zipfile
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from vimvol.errors import InputError, StorageError
from vimvol.io.storage import local_path
from vimvol.train.published import DATASETS, RemoteFile

SUMS = "SHA256SUMS"
CHUNK = 1 << 20
TIMEOUT = 60
"""Seconds without a byte after which a connection counts as lost."""

Tell = Callable[[str, int, int | None], None]
"""Told the name of a file, its bytes that are here, and all its bytes where known; again and again."""


def download(
    dataset: str, folder: str, tell: Tell = lambda *_: None, *, insecure: bool = False, only: Sequence[str] = ()
) -> list[Path]:
    """Fetch the files of a data set that are not there yet, check all, and unpack archives.

    Parameters
    ----------
    dataset
        Key of `DATASETS`.
    folder
        Where they go.
    tell
        Progress.
    insecure
        Accept a server whose certificate is not valid, for files whose checksum is published.
    only
        Names of the files to fetch; none: all.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If there is no such data set or file, the server cannot be reached or does not have it, or a file differs from
        its checksum.
    StorageError
        If it cannot be written.
    """
    if dataset not in DATASETS:
        raise InputError(f"no data set is called {dataset!r}; there are {', '.join(DATASETS)}")
    names = [file.name for file in DATASETS[dataset]]
    unknown = next((name for name in only if name not in names), None)
    if unknown is not None:
        raise InputError(f"{dataset} has no file {unknown!r}; it has {', '.join(names)}")
    target = local_path(folder)
    done = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in DATASETS[dataset]:
            if only and file.name not in only:
                continue
            done.append(_fetched(file, target, tell, insecure))
            if file.unpacked:
                _unpack(done[-1], target, tell)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror or error}); choose another folder") from None
    return done


def _fetched(file: RemoteFile, folder: Path, tell: Tell, insecure: bool) -> Path:
    path = folder / file.name
    if not path.exists():
        part = _transfer(file, folder, tell, insecure)
        _check(part, file, folder)
        part.replace(path)
        part.with_suffix(part.suffix + ".etag").unlink(missing_ok=True)
    else:
        _check(path, file, folder)
    tell(file.name, path.stat().st_size, path.stat().st_size)
    return path


def _transfer(file: RemoteFile, folder: Path, tell: Tell, insecure: bool) -> Path:
    """Bring all bytes into ``<name>.part``, from the end of what an earlier attempt left there."""
    part = folder / f"{file.name}.part"
    tag_file = part.with_suffix(part.suffix + ".etag")
    have = part.stat().st_size if part.exists() and tag_file.exists() else 0
    headers = {"User-Agent": "vimvol"}
    if have:
        # The server starts anew by itself if the file is no longer the one that the bytes are of.
        tag = tag_file.read_text(encoding="utf-8")
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {})
    context = ssl._create_unverified_context() if insecure and file.sha256 is not None else None
    by_hand = f"or put a copy into {folder} as {file.name}, which is checked and used"
    try:
        with urlopen(Request(file.url, headers=headers), timeout=TIMEOUT, context=context) as reply:
            if reply.status != 206:
                have = 0
            length = reply.headers.get("Content-Length")
            whole = have + int(length) if length is not None else None
            tag_file.write_text(reply.headers.get("ETag") or reply.headers.get("Last-Modified") or "", encoding="utf-8")
            with part.open("ab" if have else "wb") as out:
                while block := reply.read(CHUNK):
                    out.write(block)
                    have += len(block)
                    tell(file.name, have, whole)
    except HTTPError as error:
        if error.code == 416:  # all of it was there already
            return part
        raise InputError(
            f"{file.url} is not to be had (HTTP {error.code} {error.reason}); try later, {by_hand}"
        ) from None
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError) and file.sha256 is not None:
            raise InputError(
                f"the certificate of {file.url} is not valid ({reason.verify_message}); --insecure goes on without it, "
                f"the checksum protects the file all the same; {by_hand}"
            ) from None
        raise InputError(
            f"{file.url} cannot be reached ({reason}); the same command goes on when the network is back, {by_hand}"
        ) from None
    if whole is not None and have != whole:
        raise InputError(
            f"{file.url} broke off after {have} of {whole} bytes; the same command goes on from there, {by_hand}"
        )
    return part


def _check(path: Path, file: RemoteFile, folder: Path) -> None:
    """Compare a file with its published checksum, or with the one recorded when it was first seen here."""
    recorded = _recorded(folder)
    wanted = file.sha256 or recorded.get(file.name)
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if wanted is not None and found != wanted:
        origin = "published" if file.sha256 else f"in {folder / SUMS}"
        if path.suffix == ".part":
            path.unlink()
        raise InputError(
            f"{folder / file.name} has checksum {found[:12]}..., the one {origin} is {wanted[:12]}...; it is damaged "
            "or of another version: delete it and fetch it again"
        )
    if recorded.get(file.name) != found:
        lines = [f"{digest}  {name}\n" for name, digest in sorted({**recorded, file.name: found}.items())]
        (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _recorded(folder: Path) -> dict[str, str]:
    """Read ``SHA256SUMS``, which ``sha256sum --check`` reads, too."""
    path = folder / SUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def _unpack(path: Path, folder: Path, tell: Tell) -> None:
    """Unpack what is not there yet, file by file; nothing can land outside of the folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            for number, member in enumerate(members, start=1):
                target = folder / member.filename
                if not target.resolve().is_relative_to(folder.resolve()):
                    raise InputError(f"{path} holds {member.filename!r}, outside of its folder; it is not used")
                if not target.exists() or target.stat().st_size != member.file_size:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    partial = target.with_name(f".{target.name}.{os.getpid()}")
                    partial.write_bytes(archive.read(member))
                    partial.replace(target)
                tell(f"{path.name}, unpacked", number, len(members))
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} cannot be unpacked ({error}); delete it and fetch it again") from None
