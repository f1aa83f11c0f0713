"""A server that speaks S3, as a process of its own, and settings that put the storage into a bucket of it."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import boto3
import psutil
from django.test import override_settings

from maas import env

ACCESS = {"MAAS_S3_KEY": "key", "MAAS_S3_SECRET": "secret"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class BucketServer:
    """The process, and a bucket in it. What it holds is gone when it ends."""

    port: int = field(default_factory=free_port)
    bucket: str = field(default_factory=lambda: f"maas-{uuid4().hex[:8]}")
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self):
        """What looks at the bucket past our own code."""
        return boto3.client("s3", endpoint_url=self.url, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1")

    def start(self) -> None:
        command = [sys.executable, "-W", "ignore", "-c", f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{self.port}'])"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        self.client.create_bucket(Bucket=self.bucket)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def names(self) -> list[str]:
        """The keys of all objects."""
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ())]

    def uploads(self) -> list[str]:
        """The keys of uploads that were begun and neither finished nor given up."""
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", ())]


class Breaking:
    """A way to the server that is cut after so many bytes of one connection, and then refuses until it is mended."""

    def __init__(self, port: int, after: int) -> None:
        self.after, self.target, self.is_cut = after, port, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            caller, _ = self.listener.accept()
            if self.is_cut:
                caller.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, sink in ((caller, server), (server, caller)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                self.after -= len(piece)
                if self.after < 0:
                    self.is_cut = True
                if self.is_cut:
                    break
                sink.sendall(piece)
        except OSError:
            pass
        source.close()
        sink.close()


@contextmanager
def stored_in(server: BucketServer, port: int | None = None) -> Iterator[None]:
    """The default storage is the bucket, reached through another port if one is given."""
    from django.conf import settings

    given = {"MAAS_STORAGE": f"s3://{server.bucket}/here", "MAAS_S3_ENDPOINT": f"http://127.0.0.1:{port or server.port}", **ACCESS}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        with override_settings(STORAGES={**settings.STORAGES, "default": env.storage("MAAS_STORAGE", settings.MAAS_HOME)}):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def peak(task: Callable[[], object]) -> int:
    """The most bytes that this process grew by while the task ran."""
    process, most, stop = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not stop.wait(0.005):
            most = max(most, process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        task()
    finally:
        stop.set()
        thread.join()
    return most
