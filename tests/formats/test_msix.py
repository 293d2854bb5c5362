"""Full names of packages, and names in them."""

from __future__ import annotations

import pytest

from cimlayer.errors import FormatError
from cimlayer.formats.msix import decoded_name, package_full_name, publisher_id

MICROSOFT = "CN=Microsoft Corporation, O=Microsoft Corporation, L=Redmond, S=Washington, C=US"


def manifest(identity: str, before: str = "") -> bytes:
    package = '<Package xmlns="http://schemas.microsoft.com/appx/manifest/foundation/windows10">'
    return f'<?xml version="1.0" encoding="utf-8"?>{before}{package}{identity}</Package>'.encode()


def test_publisher_id_is_that_of_windows() -> None:
    assert publisher_id(MICROSOFT) == "8wekyb3d8bbwe"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ('ProcessorArchitecture="x64"', "Contoso.App_1.2.3.4_x64__8wekyb3d8bbwe"),
        ("", "Contoso.App_1.2.3.4_neutral__8wekyb3d8bbwe"),
        ('ResourceId="split.scale-100"', "Contoso.App_1.2.3.4_neutral_split.scale-100_8wekyb3d8bbwe"),
    ],
)
def test_full_name_comes_from_the_identity(more: str, name: str) -> None:
    identity = f'<Identity Name="Contoso.App" Version="1.2.3.4" Publisher="{MICROSOFT}" {more}/>'
    assert package_full_name(manifest(identity)) == name


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no XML",
        manifest(""),
        manifest('<Identity Name="../.." Version="1.2.3.4" Publisher="CN=x"/>'),
        manifest('<Identity Name="a" Version="1.2" Publisher="CN=x"/>'),
        manifest('<Identity Name="a" Version="1.2.3.4"/>'),
        manifest('<Identity Name="a" Version="1.2.3.4" Publisher="CN=x" ProcessorArchitecture="a/b"/>'),
        manifest('<Identity Name="&a;" Version="1.2.3.4" Publisher="CN=x"/>', '<!DOCTYPE x [<!ENTITY a "b">]>'),
    ],
)
def test_manifest_that_says_no_name_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match=r"AppxManifest\.xml"):
        package_full_name(text)


def test_names_are_decoded_once() -> None:
    assert decoded_name("a%20b/%40x%C3%BC%2520.txt") == "a b/@xü%20.txt"
    assert decoded_name("ü+%") == "ü+%"
    with pytest.raises(FormatError, match="not UTF-8"):
        decoded_name("%ff")
