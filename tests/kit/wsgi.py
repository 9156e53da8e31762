"""WSGI by hand: environs, a server's side of one request, and a handler."""

import io
import json

JSON = (("content-type", "application/json"),)


class Input:
    """A server's `wsgi.input`: gives what it holds in parts of a size, counts the reads, and may fail in the end."""

    def __init__(self, content=b"", *, part=1 << 30, then=None):
        self._content = io.BytesIO(content)
        self._part = part
        self._then = then
        self.reads = 0

    def read(self, size=-1):
        self.reads += 1
        part = self._content.read(min(self._part, size if size >= 0 else 1 << 30))
        if not part and self._then is not None:
            raise self._then
        return part


def environ(method="GET", path="/", *, query="", headers=(), content=None, length=None, **more):
    """Return what wsgiref makes of a request: of one name are X-Name and x_name, what comes twice is joined."""
    found = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "site",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": content if content is None or hasattr(content, "read") else Input(content),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **more,
    }
    if content is None:
        found["wsgi.input"] = Input()
    if length is not None or isinstance(content, bytes):
        found["CONTENT_LENGTH"] = str(len(content) if length is None else length)
    for name, value in headers:
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        found[key] = f"{found[key]},{value}" if key in found else value
    return found


class Call:
    """One request as a server makes it; `parts` are what it got, one by one."""

    def __init__(self, app, given, *, take=None):
        self.status, self.headers, self.parts, self.written, self.started = 0, {}, [], b"", 0
        self.iterable = app(given, self._start)
        try:
            for part in self.iterable:
                self.parts.append(part)
                if take is not None and len(self.parts) >= take:
                    break
        finally:
            close = getattr(self.iterable, "close", None)
            if close is not None:
                close()

    def _start(self, status, headers, exc_info=None):
        self.started += 1
        assert exc_info is not None or self.started == 1
        self.status = int(status.split(" ")[0])
        self.headers = {name.lower(): value for name, value in headers}

        def write(data):
            self.written += data

        return write

    @property
    def body(self):
        return self.written + b"".join(self.parts)

    @property
    def problem(self):
        return json.loads(self.body)["type"].rpartition(":")[2]


class Handler:
    """A plain WSGI application that records that it ran and what it read, by length or to the end."""

    def __init__(self, *, reads="length"):
        self.ran = 0
        self.body = None
        self.environ = None
        self._reads = reads

    def __call__(self, environ, start_response):
        self.ran += 1
        self.environ = environ
        if self._reads == "length":
            self.body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        elif self._reads == "end":
            self.body = b"".join(iter(lambda: environ["wsgi.input"].read(4096), b""))
        start_response("200 OK", [("Content-Length", "4")])
        return [b"done"]
