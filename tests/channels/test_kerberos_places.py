"""Where tickets are looked for, and what is said of an error of Kerberos."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from smb3fs.channels import ccache, kerberos
from smb3fs.channels.mechanisms import KERBEROS, Login, mechanism
from smb3fs.errors import AuthenticationError


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A krb5.conf of the test's own."""
    path = tmp_path / "krb5.conf"
    monkeypatch.setenv("KRB5_CONFIG", str(path))
    return path


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("FILE:/tmp/krb5cc_%{uid}", ["FILE:/tmp/krb5cc_4242"]),
        ("DIR:/run/user/%{euid}/krb5cc", ["DIR:/run/user/4242/krb5cc", "FILE:/tmp/krb5cc_4242"]),
        ("KEYRING:persistent:%{uid}", ["KEYRING:persistent:4242", "FILE:/tmp/krb5cc_4242"]),
        ("KCM:", ["KCM:4242", "FILE:/tmp/krb5cc_4242"]),
        ("FILE:%{TEMP}/%{username}%{null}", ["FILE:/tmp/4242", "FILE:/tmp/krb5cc_4242"]),
        ("FILE:/x/%{unknown}", ["FILE:/x/%{unknown}", "FILE:/tmp/krb5cc_4242"]),
    ],
)
def test_the_caches_of_a_user(configuration: Path, template: str, expected: list[str]) -> None:
    configuration.write_text(f"[libdefaults]\n  default_ccache_name = {template}\n")
    assert ccache.of_user(4242) == expected


def test_without_a_word_about_it(configuration: Path) -> None:
    assert ccache.of_user(7) == ["FILE:/tmp/krb5cc_7"]
    configuration.write_text("# default_ccache_name = KCM:\n[realms]\nX = {\n default_ccache_name = KCM:\n}\n")
    assert ccache.of_user(7) == ["FILE:/tmp/krb5cc_7"]
    configuration.write_text('[realms]\nX = {\n kdc = y\n}\n[libdefaults]\ndefault_ccache_name* = "KCM:"\n')
    assert ccache.of_user(7)[0] == "KCM:7"


def test_included_files(configuration: Path, tmp_path: Path) -> None:
    folder = tmp_path / "krb5.conf.d"
    folder.mkdir()
    (folder / "kcm").write_text("[libdefaults]\ndefault_ccache_name = KCM:\n")
    (folder / "ignored.rpmsave~").write_text("[libdefaults]\ndefault_ccache_name = FILE:/ignored\n")
    configuration.write_text(f"includedir {folder}\n[libdefaults]\nrdns = false\n")
    assert ccache.of_user(7)[0] == "KCM:7"
    configuration.write_text(f"include {tmp_path}/absent\ninclude {configuration}\n")  # itself, for ever
    assert ccache.of_user(7) == ["FILE:/tmp/krb5cc_7"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_cache_that_somebody_laid_for_another_user() -> None:
    path = Path("/tmp/krb5cc_3999999999")
    path.write_bytes(b"bait")
    try:
        os.chown(path, 65534, 65534)
        with pytest.raises(kerberos.NoTicket, match="does not belong to user 3999999999"):
            kerberos._check_file(f"FILE:{path}")
        os.chown(path, 3999999999, 0)
        kerberos._check_file(f"FILE:{path}")
    finally:
        path.unlink()


def test_a_cache_is_no_link_and_no_pipe(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    with pytest.raises(kerberos.NoTicket, match="not a regular file"):
        kerberos._check_file(f"FILE:{link}")
    with pytest.raises(kerberos.NoTicket, match="not a regular file"):
        kerberos._check_file(str(link))
    kerberos._check_file("KCM:0")
    kerberos._check_file(f"FILE:{tmp_path}/absent")


@pytest.mark.parametrize(
    ("username", "domain", "principal"),
    [
        ("", "", None),
        ("", "LAB", None),
        ("lab", "", "lab"),
        ("lab", "LAB", "lab"),
        ("lab", "lab.test", "lab@LAB.TEST"),
        ("lab@LAB.TEST", "other.test", "lab@LAB.TEST"),
    ],
)
def test_principals(username: str, domain: str, principal: str | None) -> None:
    assert kerberos.principal_of(username, domain) == principal


class GssError(Exception):
    """What gssapi raises: a number without a sign."""

    def __init__(self, code: int) -> None:
        super().__init__("Major (851968)")
        self.min_code = code % 2**32


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-1765328189, ("kinit", "cruid=", "KRB5_FCC_NOFILE")),
        (-1765328352, ("expired", "kinit", "keytab=", "TKT_EXPIRED")),
        (-1765328347, ("clocks", "KRB5KRB_AP_ERR_SKEW")),
        (-1765328377, ("cifs/nas", "DNS name", "ip=", "S_PRINCIPAL_UNKNOWN")),
        (-1765328378, ("username=", "domain=")),
        (-1765328228, ("KDC", "krb5.conf")),
        (errno.EACCES, ("mode", "cruid=")),
    ],
)
def test_what_is_said_of_an_error(code: int, words: tuple[str, ...]) -> None:
    outer = ValueError("Unable to negotiate")
    outer.base_error = GssError(code)  # type: ignore[attr-defined]
    for error in (GssError(code), outer):
        sentence = kerberos.explain(error, "nas")
        assert sentence is not None
        assert all(word in sentence for word in words), sentence
        assert "{" not in sentence


def test_of_others_nothing_is_said() -> None:
    assert kerberos.explain(ValueError("x"), "nas") is None
    assert kerberos.explain(GssError(4711), "nas") is None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kerberos, "missing_package", lambda: "gssapi")
    with pytest.raises(AuthenticationError, match=r"gssapi is not installed: pip install 'smb3fs\[kerberos\]'"):
        mechanism("nas", Login("", "", "", KERBEROS))
