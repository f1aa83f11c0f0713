"""What a customer's address may be: public, over TLS, on a port that web servers use."""

import ipaddress
import time

import pytest

from maas import destinations, errors
from tests.receiver import at

PRIVATE = [
    # ours, our neighbours', nobody's
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
    "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    # link-local and what clouds put there
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    # IPv6
    "::1", "::", "fe80::1", "fec0::1", "fc00::1", "fd00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1", "3fff::1", "5f00::1",
    # IPv4 inside of IPv6
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:168.63.129.16", "::127.0.0.1", "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::168.63.129.16", "64:ff9b:1::10.0.0.1", "2002:7f00:1::", "2002:a00:1::1",
    "2002:a9fe:a9fe::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:0:7f00:1::",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]


def refused(url: str, *, resolve=destinations.resolve) -> str:
    with pytest.raises(errors.BadRequest) as caught:
        destinations.check_url(url, resolve=resolve)
    assert caught.value.param == "url"
    return caught.value.code


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused_by_name_and_as_a_number(address) -> None:
    assert refused("https://example.com/", resolve=at(address)) == "address_not_allowed"
    assert refused("https://example.com/", resolve=at("1.1.1.1", address)) == "address_not_allowed"
    number = f"[{address}]" if ":" in address else address
    assert refused(f"https://{number}/", resolve=at(address)) == "address_not_allowed"


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_may_be_called(address) -> None:
    assert destinations.check_url("https://example.com/a?b=c", resolve=at(address)).addresses == (address,)


ODD = [
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://localhost/",
    "https://[::ffff:7f00:1]/",
]


@pytest.mark.parametrize("url", ODD)
def test_other_ways_to_write_loopback_are_refused(url) -> None:
    """By the real resolver, which understands them all."""
    assert refused(url) in {"address_not_allowed", "invalid_url"}


WRONG = [
    "", "example.com", "//example.com/", "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/",
    "javascript:alert(1)", "https://", "https:///path", "https://example.com:22/", "https://example.com:80/", "http://example.com:443/",
    "https://example.com:0/", "https://example.com:99999/", "https://example.com:x/", "https://user:password@example.com/",
    "https://user@example.com/", "https://@example.com/", "https://example.com/#part", "https://example.com/a b", "https://exa mple.com/",
    "https://example.com\\@127.0.0.1/", "https://example.com/\r\nX: y", "https://example.com/\0", "https://exämple.com/",
    "https://[::1%25eth0]/", "https://[example.com/", "https://exam%70le.com/", "https://example.com/" + "x" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("url", WRONG)
def test_what_is_no_address_for_this_is_refused(url) -> None:
    assert refused(url, resolve=at("1.1.1.1")) == "invalid_url"


def test_an_allowed_network_may_be_called_without_tls_and_metadata_never(settings_of) -> None:
    with settings_of(MAAS_WEBHOOK_ALLOW=["10.1.0.0/16", "169.254.0.0/16"]):
        assert destinations.check_url("http://shop.internal/", resolve=at("10.1.2.3")).port == 80
        assert destinations.check_url("https://shop.internal:8443/", resolve=at("::ffff:10.1.2.3")).port == 8443
        assert refused("http://shop.internal/", resolve=at("10.2.0.1")) == "address_not_allowed"
        assert refused("http://shop.internal/", resolve=at("10.1.2.3", "1.1.1.1")) == "invalid_url"
        assert refused("http://metadata.internal/", resolve=at("169.254.169.254")) == "address_not_allowed"


def test_a_name_that_does_not_resolve_is_told() -> None:
    assert refused("https://no-such-name.invalid/") == "invalid_url"


def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(destinations, "RESOLVE_SECONDS", 0.2)
    monkeypatch.setattr(destinations.socket, "getaddrinfo", lambda *_a, **_k: time.sleep(3) or [])
    begun = time.monotonic()
    with pytest.raises(destinations.Unreachable, match="resolved"):
        destinations.resolve("example.com", 443)
    assert time.monotonic() - begun < 1


def test_every_ip_of_these_tables_is_one() -> None:
    assert all(ipaddress.ip_address(text) for text in PRIVATE + PUBLIC)
