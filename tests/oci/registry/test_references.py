"""References to container images in a container registry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimlayer.oci.registry.references import RegistryReference

SHA = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("localhost/a", "localhost", "a", "latest", None),
        ("localhost:5000/a/b-c/d__e.f:V1.0-x_Y", "localhost:5000", "a/b-c/d__e.f", "V1.0-x_Y", None),
        (f"MCR.example.com/a@{SHA}", "mcr.example.com", "a", None, SHA),
        (f"h:1/a:v1@{SHA}", "h:1", "a", "v1", SHA),
        ("[::1]:5000/a", "[::1]:5000", "a", "latest", None),
        ("ubuntu", "docker.io", "library/ubuntu", "latest", None),
        ("me/it:v", "docker.io", "me/it", "v", None),
        ("index.docker.io/it", "docker.io", "library/it", "latest", None),
    ],
)
def test_what_a_reference_means(text: str, host: str, repository: str, tag: str | None, digest: str | None) -> None:
    assert RegistryReference.parse(f"docker://{text}") == RegistryReference(host, repository, tag, digest)


@pytest.mark.parametrize(
    "name",
    [
        *("App", "app:", "app:-x", "app:v1@", "app@sha256:12", f"app@md5:{'0' * 32}", f"app:{'x' * 129}", "a" * 256),
        *("a//b", "../app", "app:v1/../../x", "/", "a/", "", "app?x=1", "app#x", "a b", "app:v1\n", "\u0430pp"),
    ],
)
def test_an_invalid_reference_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a reference"):
        RegistryReference.parse(f"docker://127.0.0.1:5000/{name}")


@pytest.mark.parametrize("text", ["u:secret@h:1/a", "u:se/cret@h:1/a", "u:secret word@h/a"])
def test_a_password_in_a_reference_is_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="credentials belong in an authfile") as caught:
        RegistryReference.parse(f"docker://{text}")
    assert "cret" not in str(caught.value)


@given(
    st.lists(st.text("ab-_.9", min_size=1, max_size=9), min_size=1, max_size=3),
    st.none() | st.text("aB.-_", min_size=1, max_size=9),
    st.sampled_from(["", f"@{SHA}"]),
)
def test_a_reference_as_text_means_the_same(parts: list[str], tag: str | None, digest: str) -> None:
    try:
        reference = RegistryReference.parse(f"docker://h.x/{'/'.join(parts)}{':' + tag if tag else ''}{digest}")
    except ValueError:
        return
    assert RegistryReference.parse(str(reference)) == reference
