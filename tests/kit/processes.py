"""Threads that begin together, children of this process, programs of their own, and waiting for any of them."""

import os
import socket
import subprocess
import sys
import threading
import time


def wait_until(condition, what="it did not happen", seconds=60, step=0.005):
    """Wait for a true value of `condition()`, and return it."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, what() if callable(what) else what
        time.sleep(step)
    return found


def together(*functions, timeout=60):
    """Call each function in a thread of its own; return when all are done."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive()


def in_a_child(function):
    """Fork; return whether the child found the function's result true."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if function() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def python(*arguments, timeout=120, **more):
    """Run a Python program; return the finished process, with its output as text."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def is_open(port):
    """Whether a server takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
