"""Calls to addresses that customers name: how a call ends, whatever the other side does."""

import datetime
import gzip
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apps.webhooks import deliveries, delivering, services
from apps.webhooks.models import Delivery, Endpoint
from maas import destinations, errors, outgoing
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.receiver import at, receiver


@pytest.fixture
def loopback(settings_of) -> Iterator[None]:
    with settings_of(MAAS_WEBHOOK_ALLOW=["127.0.0.0/8", "::1"]):
        yield


# ---------- at delivery ----------
def test_a_name_that_turns_private_after_creation_is_refused_at_delivery(cast, monkeypatch) -> None:
    """The guard at creation saw a public address; the one at delivery sees what is there now."""
    with as_system(SystemUse.SWEEP):
        Delivery.objects.filter(state="pending").update(state="failed")
    with receiver() as target:
        port = target.url.rsplit(":", 1)[1].partition("/")[0]
        url = f"https://rebound.example:{port}/hook"
        endpoint, _secret = services.create_endpoint(cast.tenant, url=url, events=["*"], resolve=at("93.184.215.14"))
        deliveries.send_test(cast.tenant, endpoint.id)
        post, connects = outgoing.post, []
        monkeypatch.setattr(outgoing, "_connect", lambda *a: connects.append(a) or _refuse())
        monkeypatch.setattr(outgoing, "post", lambda *a: post(*a, resolve=at("127.0.0.1")))
        delivering.deliver_due()
        (row,), _more = deliveries.list_deliveries(cast.tenant, endpoint.id)
        _row, (attempt,) = deliveries.get_delivery(cast.tenant, endpoint.id, row.id)
    assert (target.calls, connects, attempt.status) == ([], [], None)
    assert "not public" in attempt.error and "127.0.0.1" not in attempt.error


def _refuse() -> None:
    raise ConnectionRefusedError


def test_the_connection_goes_to_the_address_that_was_checked(loopback) -> None:
    """A resolver that answers otherwise the second time is never asked a second time."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with receiver() as target:
        url = target.url.replace("127.0.0.1", "rebound.example")
        assert outgoing.post(url, b"{}", {}, resolve=rebinding).status == 204
        (call,) = target.calls
    assert asked == ["rebound.example"]
    assert call.headers["host"].startswith("rebound.example:")


def test_no_name_is_looked_up_behind_the_check(loopback, monkeypatch) -> None:
    looked_up, original = [], socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: looked_up.append(host) or original(host, *a, **k))
    with receiver() as target:
        outgoing.post(target.url.replace("127.0.0.1", "rebound.example"), b"{}", {}, resolve=at("127.0.0.1"))
    assert set(looked_up) <= {"127.0.0.1"}


def test_a_row_that_was_written_past_the_check_is_refused_too(cast) -> None:
    endpoint, _secret = services.create_endpoint(cast.tenant, url="https://1.1.1.1/", events=["*"])
    with as_tenant(cast.tenant.id):
        Endpoint.objects.filter(pk=endpoint.pk).update(url="https://[::1]/")
    with pytest.raises(errors.BadRequest, match="not public"):
        outgoing.post(services.get_endpoint(cast.tenant, endpoint.id).url, b"{}", {})


def test_redirects_are_not_followed(loopback) -> None:
    with receiver() as elsewhere, receiver() as target:
        for status in (301, 302, 303, 307, 308):
            target.answer = (status, {"Location": elsewhere.url}, b"")
            assert outgoing.post(target.url, b"{}", {}).status == status
    assert elsewhere.calls == []


def test_proxies_of_the_environment_are_not_used(loopback, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:1")
    with receiver() as target:
        assert outgoing.post(target.url, b"{}", {}).status == 204


# ---------- limits ----------
@contextmanager
def serve(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that speaks as it likes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listening.accept()[0] as client:
            try:
                talk(client)
            except OSError:
                return

    threading.Thread(target=run, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        listening.close()


def drip(text: bytes, then: bytes = b"") -> Callable[[socket.socket], None]:
    """Send `text`, then a byte of `then` every 50 ms, for a minute."""

    def talk(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(text)
        for _byte in range(1200):
            client.sendall(then)
            time.sleep(0.05)

    return talk


SLOW = {
    "silence": drip(b""),
    "status": drip(b"", b"H"),
    "headers": drip(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
    "many headers": drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "continues": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"z"),
    "chunks": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nz\r\n"),
    "body without end": drip(b"HTTP/1.1 200 OK\r\n\r\n", b"z"),
}


@pytest.mark.parametrize("way", SLOW)
def test_a_server_that_drips_is_cut_off_at_the_deadline(loopback, way) -> None:
    with serve(SLOW[way]) as url:
        begun = time.monotonic()
        with pytest.raises(destinations.Unreachable):
            outgoing.post(url, b"{}", {}, seconds=1)
        assert time.monotonic() - begun < 2


def test_a_server_that_drips_its_handshake_is_cut_off_at_the_deadline(loopback) -> None:
    """A TLS record of 16 KB that arrives a byte at a time."""
    with serve(drip(b"\x16\x03\x03\x3f\xff", b"\x02")) as url:
        begun = time.monotonic()
        with pytest.raises(destinations.Unreachable, match="within"):
            outgoing.post(url.replace("http", "https"), b"{}", {}, seconds=1)
        assert time.monotonic() - begun < 2


def test_a_server_that_reads_nothing_is_cut_off_at_the_deadline(loopback) -> None:
    with serve(lambda client: time.sleep(30)) as url, pytest.raises(destinations.Unreachable, match="within"):
        outgoing.post(url, b"x" * 50_000_000, {}, seconds=1)


def test_the_deadline_is_15_seconds() -> None:
    assert (outgoing.CONNECT_SECONDS, outgoing.TOTAL_SECONDS) == (5, 15)


def test_an_answer_is_read_to_16_kb_and_never_unpacked(loopback) -> None:
    with receiver() as target:
        target.answer = (200, {}, b"a" * 10_000_000)
        assert len(outgoing.post(target.url, b"{}", {}).body) == 16 * 1024
        bomb = gzip.compress(b"a" * 100_000_000)
        target.answer = (200, {"Content-Encoding": "gzip"}, bomb)
        answer = outgoing.post(target.url, b"{}", {})
        assert len(answer.body) <= 16 * 1024 and "aaaa" not in answer.body
        target.answer = (200, {f"X-{number}": "y" * 1000 for number in range(80)}, b"")
        answer = outgoing.post(target.url, b"{}", {})
        assert 10 < len(answer.headers) < 19


NO_HTTP = [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 abc\r\n\r\n", b"\x00\xff" * 500, b"HTTP/1.1 200 OK\r\nA" + b"b" * 99999]


@pytest.mark.parametrize("answer", NO_HTTP)
def test_what_is_no_http_is_told_in_words(loopback, answer) -> None:
    with serve(lambda client: (client.recv(65536), client.sendall(answer))) as url, pytest.raises(destinations.Unreachable) as caught:
        outgoing.post(url, b"{}", {})
    assert str(caught.value)


def test_a_port_where_nobody_listens_is_told_in_words(loopback) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(destinations.Unreachable, match="refused"):
        outgoing.post(f"http://127.0.0.1:{port}/", b"{}", {})


# ---------- TLS ----------
@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Path:
    """A folder with a certificate authority and a certificate for good.example and 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    root = _certificate(name, name, key.public_key(), key, x509.BasicConstraints(ca=True, path_length=None))
    own, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bad.example")])
    names = x509.SubjectAlternativeName([x509.DNSName("good.example")])
    leaf = _certificate(subject, name, own.public_key(), key, names)
    (folder / "root.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    private = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "leaf.pem").write_bytes(private + leaf.public_bytes(serialization.Encoding.PEM))
    return folder


def _certificate(subject, issuer, public_key, signing_key, extension) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1)).add_extension(extension, critical=False)
    return builder.sign(signing_key, hashes.SHA256())


@pytest.fixture
def secure(authority, loopback) -> Iterator[str]:
    """The address of a receiver with that certificate, by a name that resolves to us."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "leaf.pem")
    with receiver(tls=context) as target:
        yield target.url.replace("127.0.0.1", "NAME")


def test_the_certificate_has_to_be_for_the_name_in_the_address(secure, authority) -> None:
    trust = ssl.create_default_context(cafile=str(authority / "root.pem"))
    assert outgoing.post(secure.replace("NAME", "good.example"), b"{}", {}, resolve=at("127.0.0.1"), trust=trust).status == 204
    for name in ("bad.example", "other.example", "127.0.0.1"):
        with pytest.raises(destinations.Unreachable, match="certificate is not valid"):
            outgoing.post(secure.replace("NAME", name), b"{}", {}, resolve=at("127.0.0.1"), trust=trust)


def test_a_server_that_drips_over_tls_is_cut_off_at_the_deadline(authority, loopback) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "leaf.pem")
    trust = ssl.create_default_context(cafile=str(authority / "root.pem"))
    with serve(lambda client: SLOW["headers"](context.wrap_socket(client, server_side=True))) as url:
        begun = time.monotonic()
        with pytest.raises(destinations.Unreachable, match="within"):
            named = url.replace("http://127.0.0.1", "https://good.example")
            outgoing.post(named, b"{}", {}, resolve=at("127.0.0.1"), trust=trust, seconds=1)
        assert time.monotonic() - begun < 2


def test_a_certificate_of_an_unknown_authority_is_refused(secure) -> None:
    with pytest.raises(destinations.Unreachable, match="certificate is not valid"):
        outgoing.post(secure.replace("NAME", "good.example"), b"{}", {}, resolve=at("127.0.0.1"))
