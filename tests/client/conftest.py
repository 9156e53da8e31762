import pytest
import trustme


@pytest.fixture(scope="session")
def one_authority(tmp_path_factory):
    """A folder with no certificate, and a file with one."""
    folder = tmp_path_factory.mktemp("trusted")
    (folder / "none").mkdir()
    trustme.CA().cert_pem.write_to_path(str(folder / "ca.pem"))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _a_system_that_trusts_few(one_authority):
    """An engine reads all certificates that the system trusts for each client: most of what a test of one would cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(one_authority / "ca.pem"))
        patch.setenv("SSL_CERT_DIR", str(one_authority / "none"))
        yield
