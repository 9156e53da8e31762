"""An authority in the test's process, for applications in other processes: it approves, and remembers what it is told."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class AuthorityStub:
    def __init__(self):
        self._lock = threading.Lock()
        self.actions = {}
        self.outcomes = {}
        self.contexts = {}
        self.commands = []
        self.acked = []
        self.polls = []
        self._replies = {}
        self.word = "approved"
        # Words for single action types, and what every decision tells besides.
        self.words = {}
        self.more = {}
        self._server = None
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65_536  # one packet an answer: the other side's acknowledgements may take 40 ms

            def log_message(self, *_):
                pass

            def do_GET(self):
                self._reply(stub.get(self.path))

            def do_POST(self):
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                self._reply(stub.post(self.path, json.loads(content), self.headers.get("idempotency-key")))

            def _reply(self, body):
                if stub._server is None:
                    self.close_connection = True
                    return
                content = json.dumps(body, separators=(",", ":")).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                pass  # a killed client's connection breaks

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        server, self._server = self._server, None
        server.shutdown()
        server.server_close()

    def post(self, path, body, key):
        with self._lock:
            if key in self._replies:
                return self._replies[key]
            if path.endswith("/submit"):
                number = str(len(self.actions) + 1)
                self.actions[number] = body["resource"]
                self.contexts[number] = body.get("context") or {}
                word = self.words.get(body["action_type"], self.word)
                found = {"action_id": number, "status": word, "decision": word, **self.more}
            elif path.endswith("/ack"):
                self.acked.append((path.split("/")[-2], time.monotonic()))
                found = {"success": True}
            else:
                self.outcomes.setdefault(body["action_id"], []).append(body.get("error") or "completed")
                found = {"success": True}
            if key is not None:
                self._replies[key] = found
            return found

    def get(self, path):
        if path.endswith("/commands"):
            self.polls.append(time.monotonic())
            return {"commands": self.commands}
        if path.endswith("/kill-switch/status"):
            return {"blocked": False, "active": False}
        number = path.split("/")[-2]
        return {"action_id": number, "status": self.word, "decision": self.word}

    def told(self):
        """Return the outcomes by what the request was called."""
        with self._lock:
            return {resource: self.outcomes.get(number, []) for number, resource in self.actions.items()}
