"""What the tests of Loaded libraries share."""

from pathlib import Path
from uuid import UUID

import pytest

VOLUME = UUID("01234567-89ab-cdef-fedc-ba9876543210")


FIRST_RELEASE = {
    "CimCreateImage",
    "CimCloseImage",
    "CimCommitImage",
    "CimCreateFile",
    "CimWriteStream",
    "CimCloseStream",
    "CimCreateAlternateStream",
    "CimCreateHardLink",
    "CimDeletePath",
    "CimMountImage",
    "CimDismountImage",
}


NEWER = {
    "CimCreateImage2",
    "CimTombstoneFile",
    "CimCreateMergeLink",
    "CimAddFsToMergedImage",
    "CimAddFsToMergedImage2",
    "CimSealImage",
    "CimGetVerificationInformation",
    "CimMergeMountImage",
    "CimMountVerifiedImage",
    "CimMergeMountVerifiedImage",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("libraries")
