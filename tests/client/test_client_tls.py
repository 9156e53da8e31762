"""What answers without TLS that is trusted here is a wrong setting; what does not answer is an outage."""

import contextlib
import socket
import ssl
import struct
import threading

import httpx
import httpx2
import pytest
import trustme
from kit.clients import ACTION, PARTIES, run

from ascend_middleware import exceptions as errors
from ascend_middleware.client.http.http1 import context_of
from ascend_middleware.config import Settings

AT = pytest.mark.parametrize("party", [*PARTIES, "sync httpx", "async httpx"])


class Door:
    """Does one thing to every connection."""

    def __init__(self, act):
        self._act = act
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                self._act(connection)


@pytest.fixture(scope="module")
def issuers(tmp_path_factory):
    ours, theirs = trustme.CA(), trustme.CA()
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    ours.cert_pem.write_to_path(file)
    return ours, theirs, str(file)


def handshake(issuer, name):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issuer.issue_cert(name).configure_cert(context)

    def act(connection):
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    return act


def plain(connection):
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    while connection.recv(65536):
        pass


def cut(connection):
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def submit(party, url, file, **options):
    kind, _, engine = party.partition(" ")
    if engine in ("own", "httpx"):
        library = httpx if engine == "httpx" else httpx2
        own = library.Client if kind == "sync" else library.AsyncClient
        client = own(verify=ssl.create_default_context(cafile=file), trust_env=False)
        party, options = kind, {**options, "http_client": client}
    else:
        options = {**options, "ca_file": file}
    return run(party, url, lambda client: client.submit_action(ACTION), fail_mode="open", max_retries=3, **options)


@AT
def test_what_answers_without_trusted_tls_is_set_up_wrongly(party, issuers):
    ours, theirs, file = issuers
    for act in (plain, handshake(theirs, "127.0.0.1"), handshake(ours, "other.example")):
        with Door(act) as door:
            with pytest.raises(errors.TLSError, match="check api_url, ca_file and proxy") as caught:
                submit(party, door.url, file)
            assert door.connections == 1, "tried once"
        assert isinstance(caught.value, errors.ConfigurationError) and isinstance(caught.value, ConnectionError)
        assert caught.value.unanswered is False


@AT
def test_a_handshake_that_is_cut_off_is_an_outage(party, issuers):
    with Door(cut) as door:
        assert submit(party, door.url, issuers[2], timeout=1).conditions == ["fail_open_mode"]


@pytest.mark.parametrize("party", ["sync auto", "async auto"])
def test_an_address_that_answers_wrongly_is_not_outweighed_by_one_that_does_not_answer(party, issuers, monkeypatch):
    resolve = socket.getaddrinfo

    def look_up(host, port, *rest, **more):
        if host != "authority.test":
            return resolve(host, port, *rest, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for places in (["127.9.9.1", "127.0.0.1"], ["127.0.0.1", "127.9.9.1"]):
        with Door(plain) as door, pytest.raises(errors.TLSError):
            submit(party, door.url.replace("127.0.0.1", "authority.test"), issuers[2])


def test_certificates_are_read_once_and_again_when_their_file_is_another(issuers, tmp_path):
    file = tmp_path / "ca.pem"
    settings = Settings(api_url="https://a.example", ca_file=str(file))
    issuers[0].cert_pem.write_to_path(file)
    context = context_of(settings)
    assert context_of(settings) is context
    assert context_of(Settings(api_url="https://b.example", ca_file=str(file), engine="httpx2")) is context
    issuers[1].cert_pem.write_to_path(tmp_path / "next.pem")
    (tmp_path / "next.pem").replace(file)
    assert context_of(settings).get_ca_certs() != context.get_ca_certs()


def test_the_environments_certificates_count_only_where_it_is_trusted(issuers, monkeypatch):
    usual = context_of(Settings())
    monkeypatch.setenv("SSL_CERT_FILE", issuers[2])
    assert context_of(Settings()) is usual
    assert len(context_of(Settings(trust_env=True)).get_ca_certs()) == 1
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    with pytest.raises(errors.ConfigurationError, match="SSL_CERT_FILE"):
        context_of(Settings(trust_env=True))
    assert context_of(Settings(api_url="http://localhost")) is None
