"""The server process of the conformance table.

    python serve.py SERVER SET AUTHORITY_URL FOLDER

serves every application of a set on a port of its own and prints the ports as one line of JSON. Servers that run one
application only (gunicorn, waitress, ...) get one that goes by the port at which a request came in: each application's
guard stands inside.
"""

import asyncio
import importlib
import json
import os
import socket
import sys
import threading
from pathlib import Path

SETS = {
    "starlette": ("starlette_apps", "APPS"),
    "litestar": ("litestar_apps", "APPS"),
    "quart": ("quart_apps", "APPS"),
    "flask": ("flask_apps", "APPS"),
    "flask-asgi": ("flask_asgi_apps", "APPS"),
    "wsgi": ("wsgi_apps", "APPS"),
    "django": ("django_apps", "WSGI_APPS"),
    "django-asgi": ("django_apps", "ASGI_APPS"),
    "django-flat": ("django_apps", "FLAT_APPS"),
    "django-prefixed": ("django_apps", "PREFIXED_APPS"),
}
ROOTS = {"_below_api": "/api", "_below_public": "/public"}


def root_of(name):
    return next((root for ending, root in ROOTS.items() if name.endswith(ending)), "")


def bound():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.set_inheritable(True)
    return listener


def ports_of(listeners):
    return {name: listener.getsockname()[1] for name, listener in listeners.items()}


# One event loop, one server for each application


def uvicorn(parser):
    async def serve(apps, listeners):
        import uvicorn

        await asyncio.gather(
            *(
                uvicorn.Server(
                    uvicorn.Config(app, http=parser, root_path=root_of(name), log_level="warning", loop="asyncio")
                ).serve(sockets=[listeners[name]])
                for name, app in apps.items()
            )
        )

    return lambda apps, listeners: asyncio.run(serve(apps, listeners))


async def hypercorn(apps, listeners):
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    async def one(name, app):
        config = Config()
        config.bind = [f"fd://{listeners[name].fileno()}"]
        config.root_path = root_of(name)
        config.errorlog = None
        await serve(app, config, shutdown_trigger=asyncio.Event().wait)

    await asyncio.gather(*(one(name, app) for name, app in apps.items()))


# One application for all, by port


def wsgi_by_port(apps, listeners):
    by_port = {str(port): apps[name] for name, port in ports_of(listeners).items()}
    return lambda environ, start_response: by_port[environ["SERVER_PORT"]](environ, start_response)


def asgi_by_port(apps, listeners):
    by_port = {port: apps[name] for name, port in ports_of(listeners).items()}

    async def lifespans(receive, send):
        # Each application has a lifespan of its own, and all of them go through what the server says.
        told = {name: asyncio.Queue() for name in apps}
        heard = asyncio.Queue()

        async def live(name):
            try:
                await apps[name]({"type": "lifespan", "asgi": {"version": "3.0"}}, told[name].get, heard.put)
            except ValueError:  # Django has none
                while (message := await told[name].get()) is not None:
                    await heard.put({"type": f"{message['type']}.complete"})

        living = [asyncio.ensure_future(live(name)) for name in apps]
        for _ in ("startup", "shutdown"):
            message = await receive()
            for queue in told.values():
                await queue.put(message)
            answers = [await heard.get() for _ in apps]
            await send(next((found for found in answers if found["type"].endswith("failed")), answers[0]))
        for task in living:
            task.cancel()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await lifespans(receive, send)
        else:
            await by_port[scope["server"][1]](scope, receive, send)

    return app


def gunicorn(worker, by_port=wsgi_by_port):
    def serve(apps, listeners):
        from gunicorn.app.base import BaseApplication

        app = by_port(apps, listeners)  # now: the server closes what it was given

        class Server(BaseApplication):
            def load_config(self):
                options = {"bind": [f"fd://{listener.fileno()}" for listener in listeners.values()]}
                options |= {"worker_class": worker, "workers": 1, "timeout": 60, "accesslog": None}
                options |= {"loglevel": "warning", "graceful_timeout": 2}
                options |= {"threads": 4} if worker == "gthread" else {}
                for key, value in options.items():
                    self.cfg.set(key, value)

            def load(self):
                return app

        Server().run()

    return serve


def waitress(apps, listeners):
    import waitress

    waitress.create_server(wsgi_by_port(apps, listeners), sockets=list(listeners.values()), threads=4).run()


def wsgiref(apps, listeners):
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    class Quiet(WSGIRequestHandler):
        def log_message(self, *arguments): ...

    for name, app in apps.items():
        server = WSGIServer(listeners[name].getsockname(), Quiet, bind_and_activate=False)
        server.socket.close()
        server.socket = listeners[name]
        server.server_name, server.server_port = listeners[name].getsockname()
        server.setup_environ()
        server.set_app(app)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


def werkzeug(apps, listeners):
    from werkzeug.serving import make_server

    for name, app in apps.items():
        server = make_server("127.0.0.1", 0, app, threaded=True, fd=os.dup(listeners[name].fileno()))
        server.log = lambda *arguments: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


SERVERS = {
    "uvicorn-h11": uvicorn("h11"),
    "uvicorn-httptools": uvicorn("httptools"),
    "hypercorn": lambda apps, listeners: asyncio.run(hypercorn(apps, listeners)),
    "gunicorn-asgi": gunicorn("asgi", asgi_by_port),
    "gunicorn-sync": gunicorn("sync"),
    "gunicorn-gthread": gunicorn("gthread"),
    "waitress": waitress,
    "wsgiref": wsgiref,
    "werkzeug": werkzeug,
}


def main(server, name, url, folder):
    from apps.common import write_files

    write_files(folder)
    module, attribute = SETS[name]
    builders = getattr(importlib.import_module(f"apps.{module}"), attribute)
    if server == "gunicorn-asgi":
        # It has one root path for all.
        builders = {name: build for name, build in builders.items() if not root_of(name)}
    apps = {name: build(url, folder) for name, build in builders.items()}
    listeners = {name: bound() for name in apps}
    print(json.dumps(ports_of(listeners)), flush=True)
    SERVERS[server](apps, listeners)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
