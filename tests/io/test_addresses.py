import pytest

from atlas_ray.errors import ConfigError, FetchError
from atlas_ray.io.addresses import AddressRule, is_public

RULE = AddressRule()


@pytest.mark.parametrize(
    ("ip", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True),
        ("127.0.0.1", False), ("0.0.0.0", False), ("10.0.0.1", False), ("172.16.0.1", False), ("192.168.1.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("100.100.100.200", False), ("192.0.0.192", False),
        ("168.63.129.16", False), ("224.0.0.1", False), ("239.1.1.1", False), ("240.0.0.1", False),
        ("255.255.255.255", False), ("198.18.0.1", False), ("203.0.113.5", False),
        ("::", False), ("::1", False), ("fe80::1", False), ("fc00::1", False), ("fec0::1", False), ("ff0e::1", False),
        ("2001:db8::1", False), ("2001::1", False), ("fd00:ec2::254", False),
        ("::ffff:127.0.0.1", False), ("::ffff:93.184.216.34", True), ("::127.0.0.1", False),
        ("2002:7f00:1::", False), ("2002:5db8:d822::", True),
        ("64:ff9b::169.254.169.254", False), ("64:ff9b::93.184.216.34", True), ("64:ff9b:1::a9fe:a9fe", False),
    ],
)  # fmt: skip
def test_is_public(ip: str, public: bool) -> None:
    assert is_public(ip) is public


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/",
        "http://0177.0.0.1/", "http://017700000001/", "http://127.0.0.1./", "HTTP://LOCALHOST/", "http://localhost./",
        "http://shop.localhost/", "http://0/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/", "http://[fe80::1]/", "https://169.254.169.254/latest/meta-data/",
        "http://１２７.０.０.１/", "http://127。0。0。1/", "http://ⓛocalhost/", "http://192.168.0.1:8080/x?y#z",
    ],
)  # fmt: skip
def test_private_addresses_in_any_notation(url: str) -> None:
    with pytest.raises(FetchError) as caught:
        RULE.check_url(url)
    assert caught.value.code == "forbidden_address"


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/", "/x", "http:/x",
        "http://", "http:///x", "http://user@example.com/", "http://user:secret@example.com/",
        "http://example.com\\@127.0.0.1/", "http://example.com:port/", "http://example.com:99999/", "http://[::1/",
        "http://[fe80::1%25eth0]/", "http://exam ple.com/", "http://127%2e0.0.1/", " http://example.com/",
        "http://exam\nple.com/", "http://a..b/", "javascript:alert(1)", "data:text/html,x", "http://\udcff.com/",
    ],
)  # fmt: skip
def test_what_is_no_web_address(url: str) -> None:
    with pytest.raises(FetchError) as caught:
        RULE.check_url(url)
    assert caught.value.code == "unsupported_uri"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "HTTPS://Example.COM:8443/a b?c=d", "http://müller.example/", "http://93.184.216.34/",
        "http://1.example/", "http://localhost.example.com/", "http://[2606:2800:220:1::1]:8080/", "http://a_b.example/",
    ],
)  # fmt: skip
def test_public_addresses(url: str) -> None:
    RULE.check_url(url)


def test_the_address_that_a_name_resolves_to() -> None:
    RULE.check_address("example.com", 443, "93.184.216.34")
    for ip in ("127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"):
        with pytest.raises(FetchError, match=r"example.com:443 resolves to the private address"):
            RULE.check_address("example.com", 443, ip)


def test_only_the_named_place_may_be_private() -> None:
    rule = AddressRule(frozenset({"127.0.0.1:8000", "shop.internal", "[::1]:9"}))
    for url in ("http://127.0.0.1:8000/x", "http://[::1]:9/", "https://SHOP.internal/"):
        rule.check_url(url)
    rule.check_address("127.0.0.1", 8000, "127.0.0.1")
    rule.check_address("Shop.internal.", 80, "10.0.0.7")
    for url in (
        "http://127.0.0.1:9000/", "http://127.0.0.1/", "http://localhost:8000/", "http://2130706433:8000/",
        "http://127.0.0.2:8000/", "http://169.254.169.254/", "http://[::1]/",
    ):  # fmt: skip
        with pytest.raises(FetchError, match="forbidden_address"):
            rule.check_url(url)
    for host, port in (("shop.internal", 8080), ("other.internal", 80), ("127.0.0.1", 9000)):
        with pytest.raises(FetchError, match="forbidden_address"):
            rule.check_address(host, port, "10.0.0.7")


@pytest.mark.parametrize("place", ["", "http://127.0.0.1", "127.0.0.1:port", "127.0.0.1:80/x", "a@b", "*"])
def test_a_private_place_is_a_host_and_a_port(place: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        AddressRule(frozenset({place}))
