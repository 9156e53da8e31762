"""The one table of what an authority may answer amiss, and what each answer means for a submission.

A meaning is `denied` or `pending` (a result that permits nothing), or the one type of error that is raised.
"""

import json

from ascend_middleware import exceptions as errors

from .scripted import APPROVED, DROP, HANG, Repeat, Reset, Trickle, chunked, http

UNREADABLE = errors.ProtocolError
BROKEN = errors.NetworkError

YES = {"action_id": "7", "decision": "approved", "status": "approved"}
YES_BYTES = json.dumps(YES).encode()

# Bodies of a 200, well-formed JSON: what they mean.
BODIES = {
    # says nothing, or nothing known (A2)
    "{}": ({}, UNREADABLE),
    "id only": ({"action_id": "7"}, UNREADABLE),
    "status error": ({"status": "error"}, UNREADABLE),
    "status blocked": ({"action_id": "7", "status": "blocked"}, UNREADABLE),
    "status in capitals": ({"action_id": "7", "status": "APPROVED"}, UNREADABLE),
    "status with a blank": ({"action_id": "7", "status": "approved "}, UNREADABLE),
    "status true": ({"action_id": "7", "status": True}, UNREADABLE),
    "status a list": ({"action_id": "7", "status": ["approved"]}, UNREADABLE),
    "approved flag only": ({"action_id": "7", "approved": True}, UNREADABLE),
    "success flag only": ({"action_id": "7", "success": True}, UNREADABLE),
    "executable only": ({"action_id": "7", "execution_allowed": True}, UNREADABLE),
    "status success": ({"action_id": "7", "status": "success"}, UNREADABLE),
    "empty envelope": ({"status": "success", "data": {}}, UNREADABLE),
    "envelope of null": ({"status": "success", "data": None}, UNREADABLE),
    "envelope of a list": ({"status": "success", "data": [YES]}, UNREADABLE),
    "envelope in an envelope": ({"status": "success", "data": {"status": "success", "data": YES}}, UNREADABLE),
    "error with a success status": ({"status": "error", "error": {"message": "x"}}, UNREADABLE),
    # permits without an action (A2, E7)
    "no id": ({"status": "approved", "decision": "approved"}, UNREADABLE),
    "empty id": ({**YES, "action_id": ""}, UNREADABLE),
    "null id": ({**YES, "action_id": None}, UNREADABLE),
    "id true": ({**YES, "action_id": True}, UNREADABLE),
    "id a path": ({**YES, "action_id": "../7"}, UNREADABLE),
    "id negative": ({**YES, "action_id": -7}, UNREADABLE),
    "id an object": ({**YES, "action_id": {"id": 7}}, UNREADABLE),
    "two ids": ({**YES, "id": 8}, UNREADABLE),
    "pending without an id": ({"status": "pending"}, UNREADABLE),
    # refusals of other generations (A2, E7)
    "pending": ({"action_id": "7", "status": "pending"}, "pending"),
    "pending_approval": ({"action_id": "7", "status": "pending_approval"}, "pending"),
    "escalated": ({"action_id": "7", "status": "escalated"}, "pending"),
    "denied without an id": ({"decision": "denied"}, "denied"),
    "rejected": ({"action_id": "7", "status": "rejected"}, "denied"),
    "timeout": ({"action_id": "7", "status": "timeout"}, "denied"),
    "requires_modification": ({"action_id": "7", "status": "requires_modification"}, "denied"),
    "enveloped denial": ({"status": "success", "data": {"action_id": "7", "decision": "denied"}}, "denied"),
    # contradictions (A6)
    "approved, status denied": ({**YES, "status": "denied"}, "denied"),
    "approved, decision denied": ({**YES, "decision": "denied"}, "denied"),
    "allowed, status pending": ({**YES, "decision": "allowed", "status": "pending_approval"}, "pending"),
    "denied, executable": ({"action_id": "7", "decision": "denied", "execution_allowed": True}, "denied"),
    "approved, denied, executable": ({**YES, "decision": "denied", "execution_allowed": True}, "denied"),
    "approved, not executable": ({**YES, "execution_allowed": False}, "denied"),
    "approved, not executable as text": ({**YES, "execution_allowed": "false"}, UNREADABLE),
    "approved, enforcement denied": ({**YES, "enforcement_decision": "denied"}, "denied"),
    "approved, enforcement escalated": ({**YES, "enforcement_decision": "escalated"}, "pending"),
    "approved, enforcement unknown": ({**YES, "enforcement_decision": "sure"}, UNREADABLE),
    "approved, not approved": ({**YES, "approved": False}, "denied"),
    "approved, 0 approved": ({**YES, "approved": 0}, UNREADABLE),
    "approved, no success": ({**YES, "success": False}, "denied"),
    "approved, requires approval": ({**YES, "requires_approval": True}, "pending"),
    "pending, no success": ({"action_id": "7", "status": "pending", "success": False}, "denied"),
    "approved, status success": ({**YES, "status": "success"}, UNREADABLE),
    "approved, decision unknown": ({**YES, "decision": "sure"}, UNREADABLE),
    "beside the envelope denied": ({"status": "success", "data": YES, "decision": "denied"}, UNREADABLE),
    "beside the envelope not executable": ({"status": "success", "data": YES, "execution_allowed": False}, "denied"),
    "beside the envelope no success": ({"status": "success", "data": YES, "success": False}, "denied"),
    "beside the envelope to be approved": ({"status": "success", "data": YES, "requires_approval": True}, "pending"),
    "beside the envelope enforcement": ({"status": "success", "data": YES, "enforcement_decision": "denied"}, "denied"),
    "in the envelope no success": ({"status": "success", "data": {**YES, "success": False}, "success": True}, "denied"),
}

# Contents of a 200 that are not what they should be (E6).
CONTENTS = {
    "empty": (b"", UNREADABLE),
    "blank": (b" \n", UNREADABLE),
    "html": (b"<html>hello</html>", UNREADABLE),
    "array": (b"[" + YES_BYTES + b"]", UNREADABLE),
    "null": (b"null", UNREADABLE),
    "text": (b'"approved"', UNREADABLE),
    "number": (b"7", UNREADABLE),
    "true": (b"true", UNREADABLE),
    "cut": (YES_BYTES[:-9], UNREADABLE),
    "cut before the last brace": (YES_BYTES[:-1], UNREADABLE),
    "two objects": (YES_BYTES * 2, UNREADABLE),
    "trailing text": (YES_BYTES + b" ok", UNREADABLE),
    "a callback": (b"callback(" + YES_BYTES + b")", UNREADABLE),
    "single quotes": (repr(YES).encode(), UNREADABLE),
    "a comment": (YES_BYTES + b"// fine", UNREADABLE),
    "utf-16": (json.dumps(YES).encode("utf-16"), UNREADABLE),
    "byte-order mark": (b"\xef\xbb\xbf" + YES_BYTES, UNREADABLE),
    "not utf-8": (b'{"action_id": "7", "status": "approved", "reason": "\xff"}', UNREADABLE),
    "lone surrogate": (b'{"action_id": "7", "status": "approved", "\\ud800": 1}', UNREADABLE),
    "nul": (b'{"action_id": "7", "status": "approved\x00"}', UNREADABLE),
    "NaN": (b'{"action_id": "7", "status": "approved", "risk_score": NaN}', UNREADABLE),
    "deep": (b'{"a":' * 100_000, UNREADABLE),
    "decision twice": (b'{"action_id": "7", "decision": "denied", "decision": "approved"}', UNREADABLE),
    "executable twice": (
        b'{"action_id": "7", "status": "approved", "execution_allowed": false, "execution_allowed": true}',
        UNREADABLE,
    ),
    "data twice": (
        b'{"status": "success", "data": {"decision": "denied"}, "data": {"action_id": "7", "decision": "approved"}}',
        UNREADABLE,
    ),
    "decision twice, once escaped": (
        b'{"action_id": "7", "decision": "denied", "decisi\\u006fn": "approved"}',
        UNREADABLE,
    ),
    "too long": (b" " * (4 * 1024 * 1024 + 1), UNREADABLE),
}

MESSAGE = {"status": "error", "error": {"code": "X", "message": "m"}}
GOVERNANCE = {"detail": {"error": "MCP governance violation", "code": "X", "detail": "unregistered"}}


def refused(status, kind, body=MESSAGE, *headers):
    return http(status, body, *headers), kind


# Statuses. A body that permits changes nothing about them.
STATUSES = {
    "204": (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", UNREADABLE),
    "205 with a body": refused(205, UNREADABLE, b""),
    **{
        f"{status} to elsewhere": (http(status, YES, "Location: http://127.0.0.1:1/"), UNREADABLE)
        for status in (300, 301, 302, 303, 304, 307, 308)
    },
    "301 to itself": (http(301, b"", "Location: /api/v1/actions/submit"), UNREADABLE),
    "302 to nowhere": (http(302, YES), UNREADABLE),
    "307 to another scheme": (http(307, b"", "Location: file:///etc/passwd"), UNREADABLE),
    "400": refused(400, errors.ValidationError),
    "401": refused(401, errors.AuthenticationError),
    "401 that permits": refused(401, errors.AuthenticationError, YES),
    "401 digest": refused(401, errors.AuthenticationError, YES, 'WWW-Authenticate: Digest realm="r", nonce="n"'),
    "403": refused(403, errors.AuthorizationDeniedError),
    "403 that permits": refused(403, errors.AuthorizationDeniedError, YES),
    "403 agent blocked": refused(403, errors.KillSwitchError, {"detail": {"code": "AGENT_BLOCKED", "message": "b"}}),
    "403 governance": refused(403, "denied", GOVERNANCE),
    "404": refused(404, errors.NotFoundError),
    "404 empty": refused(404, errors.NotFoundError, b""),
    "405": refused(405, UNREADABLE, YES),
    "407": refused(407, UNREADABLE, YES, "Proxy-Authenticate: Basic"),
    "409": refused(409, errors.ConflictError),
    "410": refused(410, errors.NotFoundError),
    "418": refused(418, UNREADABLE, b"teapot"),
    "422": refused(422, errors.ValidationError, {"detail": [{"loc": ["body", "x"], "msg": "wrong"}]}),
    "422 of nonsense": refused(422, errors.ValidationError, {"detail": [1, None, {"loc": 5}]}),
    "429": refused(429, errors.RateLimitError, b"", "Retry-After: 0"),
    "429 that permits": refused(429, errors.RateLimitError, YES, "Retry-After: 0"),
    "500": refused(500, errors.ServerError, YES),
    "501": refused(501, errors.ServerError, b"?"),
    "503": refused(503, errors.ServerError, b"?"),
    "520": refused(520, errors.ServerError, b"<html>"),
    "599": refused(599, errors.ServerError, YES),
    **{
        f"429 Retry-After {value!r}": (http(429, b"", f"Retry-After: {value}"), errors.RateLimitError)
        for value in (
            "1.5",
            "soon",
            "",
            "-1",
            "nan",
            "inf",
            "9" * 30,
            "Wed, 99 Foo 2099",
            "Fri, 31 Dec 1999 23:59:59 GMT",
        )
    },
}

# What is not, or not quite, HTTP. `None` means: one of our errors or a result that permits nothing, engines differ.
HEAD = b"HTTP/1.1 200 OK\r\n"
CLOSE = b"Connection: close\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(YES_BYTES)
LINES = {
    "dropped": (DROP, BROKEN),
    "reset": (Reset(), BROKEN),
    "reset in the head": (Reset(HEAD + b"Content-"), BROKEN),
    "reset in the body": (Reset(APPROVED[:-5]), BROKEN),
    "cut in the head": (HEAD + b"Content-", BROKEN),
    "cut after the head": (HEAD + LENGTH + CLOSE, BROKEN),
    "cut in the body": (HEAD + LENGTH + CLOSE + YES_BYTES[:-1], BROKEN),
    "ssh": (b"SSH-2.0-OpenSSH\r\n\r\n", BROKEN),
    "http/0.9": (YES_BYTES, BROKEN),
    "http/2 preface": (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", BROKEN),
    "tls alert": (b"\x15\x03\x01\x00\x02\x02\x46", BROKEN),
    "no status": (b"HTTP/1.1\r\nConnection: close\r\n\r\n" + YES_BYTES, BROKEN),
    "status abc": (b"HTTP/1.1 abc OK\r\n" + LENGTH + CLOSE + YES_BYTES, BROKEN),
    "status 99": (b"HTTP/1.1 99 OK\r\n" + LENGTH + CLOSE + YES_BYTES, None),
    "status 999": (b"HTTP/1.1 999 OK\r\n" + LENGTH + CLOSE + YES_BYTES, None),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + YES_BYTES, None),
    "only 100s": (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, BROKEN),
    "header without a colon": (HEAD + b"Content-Length 51\r\n" + CLOSE + YES_BYTES, BROKEN),
    "huge header": (HEAD + b"X: " + b"x" * 2_000_000 + b"\r\n" + LENGTH + CLOSE + YES_BYTES, BROKEN),
    "length abc": (HEAD + b"Content-Length: abc\r\n" + CLOSE + YES_BYTES, BROKEN),
    "length negative": (HEAD + b"Content-Length: -1\r\n" + CLOSE + YES_BYTES, BROKEN),
    "lengths that differ": (HEAD + b"Content-Length: 2\r\n" + LENGTH + CLOSE + YES_BYTES, BROKEN),
    "length too short": (HEAD + b"Content-Length: 9\r\n" + CLOSE + YES_BYTES, UNREADABLE),
    "length huge": (HEAD + b"Content-Length: 99999999999999999999\r\n" + CLOSE + YES_BYTES, BROKEN),
    "chunk size abc": (chunked(end=b"zz\r\n" + YES_BYTES + b"\r\n0\r\n\r\n"), BROKEN),
    "chunks cut": (chunked(YES_BYTES, end=b""), BROKEN),
    "chunk cut": (chunked(end=b"ff\r\n" + YES_BYTES), BROKEN),
    "too long in chunks": (chunked(*[b" " * 65536] * 65), UNREADABLE),
    "compressed": (http(200, b"x", "Content-Encoding: gzip"), UNREADABLE),
    "compressed twice": (http(200, YES, "Content-Encoding: identity, br"), UNREADABLE),
    "unknown coding": (http(200, YES, "Content-Encoding: rot13"), UNREADABLE),
}

CASES = {
    **{f"body: {name}": (http(200, body), meaning) for name, (body, meaning) in BODIES.items()},
    **{f"content: {name}": (http(200, content), meaning) for name, (content, meaning) in CONTENTS.items()},
    **{f"status: {name}": case for name, case in STATUSES.items()},
    **{f"line: {name}": case for name, case in LINES.items()},
}

# What takes its time: each ends at the deadline, with TimeoutError.
BODY = APPROVED.index(b"\r\n\r\n") + 4
SLOW = {
    "hangs": HANG,
    "trickles the head": Trickle(APPROVED),
    "trickles the body": Trickle(APPROVED, head=BODY),
    "trickles chunks": Repeat(b"1\r\n \r\n", head=chunked(end=b"")),
    "trickles headers without end": Repeat(b"X: y\r\n", head=HEAD),
    "says 100 without end": Repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "says 102 without end": Repeat(b"HTTP/1.1 102 Processing\r\n\r\n"),
}
