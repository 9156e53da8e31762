"""A net that catches what a process tells while a test drives it, and looks for marked secrets in it."""

import io
import logging
import pickle
import sys
import traceback
import warnings

KEY = "owkai_live_LEAKKEY0123456789"
PASSWORD = "LEAKPASSWORD"
MARKS = ("LEAKKEY", "LEAKPASSWORD")
# base64 of `user:LEAKPASSWORD`, as Basic authentication spells it.
BASIC = "dXNlcjpMRUFLUEFTU1dPUkQ"
# The libraries whose own loggers are turned up.
LIBRARIES = ("httpx2", "httpcore2", "h11", "asyncio", "anyio", "uvicorn")
TESTS_OWN = "httpx"  # the test client of an older Starlette
OURS = ("/ascend_middleware/", "/httpx2/", "/httpcore2/")


def marks_in(text):
    return [mark for mark in (*MARKS, BASIC) if mark in text]


class _Catcher(logging.Handler):
    def __init__(self, net):
        super().__init__(logging.DEBUG)
        self.net = net

    def emit(self, record):
        if record.name.partition(".")[0] == TESTS_OWN:
            return
        self.net.records += 1
        where = f"log record of {record.name} at {record.pathname}:{record.lineno}"
        self.net.look(where, logging.Formatter().format(record))
        for name, value in vars(record).items():
            if name != "exc_info":
                self.net.look(f"{where}, {name}", repr(value))
        if record.exc_info and record.exc_info[1] is not None:
            self.net.look_at_error(record.exc_info[1], where)


class Net:
    """Use as a context manager; `found` lists what was told and where."""

    def __init__(self):
        self.found = []
        self.records = 0

    def __enter__(self):
        self._handler = _Catcher(self)
        root = logging.getLogger()
        self._levels = {root: root.level}
        for name in [*LIBRARIES, *logging.root.manager.loggerDict]:
            logger = logging.getLogger(name)
            if name.partition(".")[0] in (*LIBRARIES, "ascend_middleware"):
                self._levels[logger] = logger.level
                logger.setLevel(logging.DEBUG)
        root.setLevel(logging.DEBUG)
        root.addHandler(self._handler)
        self._warnings = warnings.catch_warnings(record=True)
        self._caught = self._warnings.__enter__()
        warnings.simplefilter("always")
        self._stderr, sys.stderr = sys.stderr, io.StringIO()
        return self

    def __exit__(self, *_):
        told, sys.stderr = sys.stderr.getvalue(), self._stderr
        self.look("stderr", told)
        for caught in self._caught:
            self.look("warning", str(caught.message))
        self._warnings.__exit__(None, None, None)
        logging.getLogger().removeHandler(self._handler)
        for logger, level in self._levels.items():
            logger.setLevel(level)

    def look(self, where, text):
        if found := marks_in(text):
            self.found.append(f"{found} in {where}: {text[:2000]}")

    def look_at_error(self, error, where="error", *, key_in_locals=None):
        """Look at an exception and at all that a traceback shows of its chain: text, fields, pickled form.

        With `key_in_locals`, also at the locals of each frame of ours and of the HTTP libraries, where a reporter of
        errors looks: the key must be in none of them.
        """
        self.look(f"{where}, traceback", "".join(traceback.format_exception(error)))
        one = error
        while one is not None:
            kind = type(one).__name__
            self.look(f"{where}, {kind}", f"{one!r} {one} {one.args!r} {vars(one)!r}")
            if type(one).__module__.startswith("ascend_middleware"):
                self.look(f"{where}, {kind}, pickled", pickle.dumps(one).decode("latin-1"))
            for frame, line in traceback.walk_tb(one.__traceback__) if key_in_locals else ():
                file = frame.f_code.co_filename
                if any(part in file for part in OURS):
                    for name, value in frame.f_locals.items():
                        if key_in_locals in (shown := _shown(value)):
                            self.found.append(f"key in {where}, {kind}, local {name} of {file}:{line}: {shown[:500]}")
            one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _shown(value):
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(error).__name__}>"
