from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.emulator import apt_sources
from deploy.emulator.apt_sources import Source, debian_sources, is_debian, parse_deb822, parse_list
from deploy.errors import DeviceError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def machine(root: Path, *, name: str = "debian", keyring: bool = True, **files: str) -> Path:
    """A file system with the given files in etc/apt."""
    (root / "etc/apt/sources.list.d").mkdir(parents=True)
    (root / "etc/os-release").write_text(f'NAME="x"\nID={name}\n')
    if keyring:
        (root / KEYRING[1:]).parent.mkdir(parents=True)
        (root / KEYRING[1:]).touch()
    for file_name, text in files.items():
        (root / "etc/apt" / file_name.replace("__", "/").replace("_dot_", ".")).write_text(text)
    return root


def test_one_line_format() -> None:
    text = f"""# a comment
deb http://mirror.example/debian bookworm main contrib # trailing
deb [arch=amd64 signed-by={KEYRING}] http://mirror.example/debian bookworm-updates main
deb-src http://mirror.example/debian bookworm main
garbage
"""
    assert parse_list(text) == [
        Source(("http://mirror.example/debian",), ("bookworm",), ("main", "contrib")),
        Source(("http://mirror.example/debian",), ("bookworm-updates",), ("main",), KEYRING),
    ]


def test_deb822_format_with_comments_disabled_stanzas_and_inline_keys() -> None:
    text = f"""Types: deb deb-src
# a comment inside
URIs: http://a.example/debian http://b.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: {KEYRING}

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://c.example/debian
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""
    first, second = parse_deb822(text)
    assert first.uris == ("http://a.example/debian", "http://b.example/debian")
    assert first.suites == ("bookworm", "bookworm-updates")
    assert second.signed_by.splitlines()[1] == "-----BEGIN PGP PUBLIC KEY BLOCK-----"
    assert parse_deb822(second.stanza()) == [second], "a stanza that is written is read back"


def test_third_parties_are_left_out() -> None:
    def source(suite: str, component: str = "main", signed_by: str = "") -> Source:
        return Source(("http://x.example/",), (suite,), (component,), signed_by)

    assert is_debian(source("bookworm", signed_by=KEYRING), machine_is_debian=False)
    assert is_debian(source("bookworm-security"), machine_is_debian=True)
    assert is_debian(source("trixie/updates"), machine_is_debian=True)
    for other in (
        source("bookworm", "stable", KEYRING),
        source("bookworm", signed_by="/etc/apt/keyrings/php.gpg"),
        source("bookworm-pgdg", signed_by="/usr/share/keyrings/pgdg.gpg"),
        source("nodistro", signed_by="/usr/share/keyrings/nodesource.gpg"),
        source("cloud-sdk-bookworm"),
    ):
        assert not is_debian(other, machine_is_debian=True), other


def test_what_the_machine_has_is_reused_with_signatures_checked(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        sources_dot_list="deb [trusted=yes arch=amd64] http://m.example/debian bookworm main\n",
        sources_dot_list_dot_d__other_dot_list="deb http://o.example/apt cloud-sdk main\n",
        sources_dot_list_dot_d__x_dot_sources=(
            "Types: deb\nURIs: http://n.example/debian\nSuites: bookworm\nComponents: main\n"
            f"Signed-By: {KEYRING}\n"
        ),
    )
    found = debian_sources(root, {})
    assert [source.uris[0] for source in found] == [
        "http://m.example/debian",
        "http://n.example/debian",
    ]
    written = found[0].stanza()
    assert "trusted" not in written.lower() and "amd64" not in written
    assert "debian-archive-keyring" in written, "an entry that names no key gets Debian's"


def test_ubuntu_without_a_mirror_says_what_to_do(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        name="ubuntu",
        sources_dot_list="deb http://u.example/ubuntu noble main universe\n",
    )
    with pytest.raises(DeviceError, match=apt_sources.MIRROR_VARIABLE):
        debian_sources(root, {})


def test_a_mirror_from_the_environment(tmp_path: Path) -> None:
    root = machine(tmp_path, name="ubuntu")
    environ = {apt_sources.MIRROR_VARIABLE: "https://d.example/debian"}
    assert debian_sources(root, environ)[0].uris == ("https://d.example/debian",)
    for bad in ("d.example", "https://a b", "https://a\nTrusted: yes"):
        with pytest.raises(DeviceError, match="not a URL"):
            debian_sources(root, {apt_sources.MIRROR_VARIABLE: bad})


def test_a_mirror_without_debians_keyring_is_refused(tmp_path: Path) -> None:
    root = machine(tmp_path, name="ubuntu", keyring=False)
    with pytest.raises(DeviceError, match="debian-archive-keyring"):
        debian_sources(root, {apt_sources.MIRROR_VARIABLE: "https://d.example/debian"})


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    for source in parse_list(text) + parse_deb822(text):
        assert source.stanza().startswith("Types: deb\n")
