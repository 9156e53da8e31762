"""Who asks, and how often: keys and tokens, limits, versions, and the repetition of a request."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import sqlite3
import threading

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from kit.desk import POLICY
from kit.processes import together

from ascend_middleware.api.endpoints import TABLE
from ascend_middleware.authority import load_policy, parse_policy
from ascend_middleware.authority.keys import LOCAL, Role, Window, contradicts, network_of, presented
from ascend_middleware.authority.service import Service
from ascend_middleware.authority.store.schema import SQLITE
from ascend_middleware.authority.tokens import public_key_issue
from ascend_middleware.exceptions import ConfigurationError, ValidationError

WHERE = "/api/deployment-info"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def private_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


JWT = f"""
[jwt]
public_key = '''{pem(KEY)}'''
issuer = "https://id.example.com"
audience = "ascend"
"""


@pytest.fixture
def desk(desk_of):
    desk = desk_of(POLICY + JWT)
    yield desk
    assert desk.store.verify_audit() is None


def claims(desk, **changed):
    said = {
        "iss": "https://id.example.com",
        "aud": "ascend",
        "sub": "carol",
        "role": "admin",
        "tenant": "default",
        "exp": int(desk.time) + 60,
    }
    return {name: value for name, value in {**said, **changed}.items() if value is not None}


def foreign(desk, key=KEY, algorithm="RS256", **changed):
    secret = private_pem(key) if algorithm == "RS256" else key
    return jwt.encode(claims(desk, **changed), secret, algorithm=algorithm)


def ask(desk, token, path=WHERE, method="GET", **options):
    return desk.call(method, path, key=None, authorization=f"Bearer {token}", **options)


def own(desk, **options):
    return desk.authority.tokens.issue(desk.store.find_key(desk.admin), now=desk.time, **options)


def test_times_are_of_the_authoritys_own_clock(desk):
    desk.time += 10 * 365 * 86_400
    assert ask(desk, foreign(desk, nbf=int(desk.time), iat=int(desk.time)))[0] == 200


def test_a_token_of_the_sign_in_stands_for_its_key_until_it_ends_or_the_key_is_revoked(desk):
    token = own(desk, lifetime=100)
    assert ask(desk, token)[0] == 200
    number = desk.submit("transaction", amount=5000)[1]["action_id"]
    status, answer = ask(desk, token, f"/api/v1/actions/{number}/approve", "POST")
    assert (status, answer["decided_by"]) == (200, "boss")
    desk.time += 101
    assert desk.code(ask(desk, token)) == (401, "AUTHENTICATION_FAILED")
    token = own(desk)
    desk.time += 12 * 3600 - 1
    assert ask(desk, token)[0] == 200
    desk.time += 1
    assert ask(desk, token)[0] == 401
    token = own(desk)
    desk.store.revoke_key(2)
    assert ask(desk, token)[0] == 401


def test_a_token_approves_nothing_that_its_key_submitted(desk):
    number = desk.submit("transaction", amount=5000, key="admin")[1]["action_id"]
    answer = ask(desk, own(desk), f"/api/v1/actions/{number}/approve", "POST")
    assert desk.code(answer) == (403, "SELF_APPROVAL")


def test_tokens_of_the_configured_issuer_name_role_and_organisation(desk):
    token = foreign(desk)
    assert ask(desk, token)[0] == 200
    status, answer = ask(
        desk, token, "/api/smart-rules", "POST", body={"name": "r", "condition": "true", "action": "deny"}
    )
    assert status == 201
    assert ask(desk, foreign(desk, role="user"), "/api/smart-rules", "POST", body={})[0] == 403
    assert desk.submit()[1]["status"] == "denied"
    assert ask(desk, foreign(desk, tenant="other"), "/api/smart-rules")[1]["total"] == 0
    number = desk.submit(key="stranger")[1]["action_id"]
    assert ask(desk, foreign(desk, tenant="other"), f"/api/v1/actions/{number}")[0] == 200


def test_one_person_is_one_person_however_often_they_sign_in(desk):
    body = {"agent_id": "a", "action_type": "transaction", "action_details": {"amount": 5000}}
    number = ask(desk, foreign(desk), "/api/v1/actions/submit", "POST", body=body)[1]["action_id"]
    answer = ask(desk, foreign(desk, exp=int(desk.time) + 500), f"/api/v1/actions/{number}/approve", "POST")
    assert desk.code(answer) == (403, "SELF_APPROVAL")
    assert ask(desk, foreign(desk, sub="dave"), f"/api/v1/actions/{number}/approve", "POST")[0] == 200


def approve(desk, number, token):
    status, answer = ask(desk, token, f"/api/v1/actions/{number}/approve", "POST")
    return (status, answer["error"]["code"]) if status >= 400 else (status, answer["status"])


ALIKE = [
    "boss",
    "BOSS",
    "  boss ",
    "b o s s",
    "bo\u200bss",
    "\ufeffboss",
    "bo\u00adss",
    "bos\u2060s",
    "ｂｏｓｓ",
    "boſs",
    "bo\ufe0fss",
]


@pytest.mark.parametrize("name", ALIKE)
def test_a_token_and_a_key_of_one_person_are_one_person(desk, name):
    body = {"agent_id": "a", "action_type": "transaction", "action_details": {"amount": 5000}}
    number = ask(desk, foreign(desk, sub=name), "/api/v1/actions/submit", "POST", body=body)[1]["action_id"]
    status, answer = desk.post(f"/api/v1/actions/{number}/approve", key="admin")
    assert (status, answer["error"]["code"]) == (403, "SELF_APPROVAL")
    assert desk.post(f"/api/v1/actions/{number}/reject", key="admin")[0] == 403
    number = desk.submit("transaction", amount=5000, key="admin")[1]["action_id"]
    assert approve(desk, number, foreign(desk, sub=name)) == (403, "SELF_APPROVAL")
    assert approve(desk, number, foreign(desk, sub="bos")) == (200, "approved")


def test_one_person_does_not_count_twice_by_key_and_by_token(desk_of):
    desk = desk_of(POLICY + JWT + "[approvals.high]\ncount = 2\n")
    number = desk.submit("transaction", amount=5000)[1]["action_id"]
    assert approve(desk, number, foreign(desk, sub="Boss\u200b")) == (200, "pending")
    assert desk.code(desk.post(f"/api/v1/actions/{number}/approve", key="admin")) == (409, "ALREADY_APPROVED")
    assert approve(desk, number, foreign(desk, sub="BOSS")) == (409, "ALREADY_APPROVED")
    assert approve(desk, number, foreign(desk)) == (200, "approved")


def test_a_claim_says_what_the_keys_call_the_person(desk_of):
    desk = desk_of(POLICY + JWT + 'name_claim = "email"\n')
    body = {"agent_id": "a", "action_type": "transaction", "action_details": {"amount": 5000}}

    def token(**said):
        return foreign(desk, sub=said.pop("sub", "00u1f"), **said)

    number = ask(desk, token(email="boss"), "/api/v1/actions/submit", "POST", body=body)[1]["action_id"]
    assert desk.code(desk.post(f"/api/v1/actions/{number}/approve", key="admin")) == (403, "SELF_APPROVAL")
    # The subject stays one person, whatever they call themselves later.
    assert approve(desk, number, token(email="another")) == (403, "SELF_APPROVAL")
    for nobody in (None, "", " \u200b", 7):
        assert ask(desk, token(email=nobody))[0] == 401
    assert ask(desk, token(sub="", email="carol"))[0] == 401
    assert approve(desk, number, token(sub="00u2e", email="carol")) == (200, "approved")


@pytest.mark.sqlite_file
def test_who_submitted_before_is_known_after_the_migration(desk_of, tmp_path, monkeypatch):
    monkeypatch.setattr("ascend_middleware.authority.store.store.new_salt", str)  # as it was then
    desk = desk_of(POLICY + JWT, tmp_path / "old.db")
    body = {"agent_id": "a", "action_type": "transaction", "action_details": {"amount": 5000}}
    ask(desk, foreign(desk, sub="Boss"), "/api/v1/actions/submit", "POST", body=body)
    desk.submit("transaction", amount=5000, key="admin")
    desk.authority.handle(
        "POST", "/api/v1/actions/submit", "", {}, json.dumps(body).encode(), credential=LOCAL, client=""
    )
    desk.authority.close()
    raw = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    for column in ("submitter", "salt"):
        raw.execute(f"ALTER TABLE actions DROP COLUMN {column}")
    for column in ("expires_at", "used_at", "agents", "token_round"):
        raw.execute(f"ALTER TABLE keys DROP COLUMN {column}")
    raw.execute("ALTER TABLE answers DROP COLUMN seq")
    for kind, name in re.findall(r"CREATE (INDEX|TABLE) (\w+)", str(SQLITE[7:])):
        raw.execute(f"DROP {kind} IF EXISTS {name}")
    raw.execute("PRAGMA user_version = 5")
    raw.close()
    newer = desk_of(POLICY + JWT, tmp_path / "old.db")
    assert [row["submitter"] for row in newer.store.rows("SELECT submitter FROM actions ORDER BY id")] == [
        "Boss",
        "boss",
        "local",
    ]
    for number, outcome in ((1, 403), (2, 403), (3, 200)):
        assert newer.post(f"/api/v1/actions/{number}/approve", key="admin")[0] == outcome
    assert newer.store.verify_audit() is None


def test_the_process_itself_is_no_person(desk_of):
    desk = desk_of(POLICY + JWT)
    body = json.dumps({"agent_id": "a", "action_type": "transaction", "action_details": {"amount": 5000}}).encode()
    desk.authority.handle("POST", "/api/v1/actions/submit", "", {}, body, credential=LOCAL)
    assert approve(desk, 1, foreign(desk, sub="local")) == (200, "approved")


@pytest.mark.parametrize("name", ["", " ", "\u200b\ufeff", "\u2800", "\u3164"])
def test_a_key_names_somebody(desk, name):
    with pytest.raises(ValidationError, match="says whose key it is"):
        desk.store.issue_key(name=name, role=Role.ADMIN, tenant="default")


def b64(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(desk, header, secret=b"", **changed):
    text = f"{b64(header)}.{b64(claims(desk, **changed))}"
    return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest()) if secret else ''}"


def test_no_forged_token_is_anybody(desk):
    public = pem(KEY).encode()
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    genuine = foreign(desk)
    head, body, signature = genuine.split(".")
    tokens = {
        "alg none": forged(desk, {"alg": "none", "typ": "JWT"}),
        "alg None": forged(desk, {"alg": "None"}),
        "no alg": forged(desk, {"typ": "JWT"}),
        "the public key as a secret": forged(desk, {"alg": "HS256"}, public),
        "an empty secret": forged(desk, {"alg": "HS256"}, b"\x00"),
        "another key": foreign(desk, other),
        "another algorithm": jwt.encode(claims(desk), private_pem(KEY), algorithm="PS256"),
        "a key in the header": jwt.encode(
            claims(desk), private_pem(other), algorithm="RS256", headers={"jku": "https://evil.example", "kid": "../x"}
        ),
        "expired": foreign(desk, exp=int(desk.time)),
        "no end": foreign(desk, exp=None),
        "an end that is no number": forged(desk, {"alg": "RS256"}, b"x", exp="soon"),
        "from the future": foreign(desk, nbf=int(desk.time) + 120),
        "made in the future": foreign(desk, iat=int(desk.time) + 120),
        "another audience": foreign(desk, aud="other"),
        "no audience": foreign(desk, aud=None),
        "another issuer": foreign(desk, iss="https://evil.example"),
        "our issuer, their key": foreign(desk, iss="ascend-authority", aud="ascend-authority"),
        "no subject": foreign(desk, sub=None),
        "an empty subject": foreign(desk, sub=""),
        "no tenant": foreign(desk, tenant=None),
        "an empty tenant": foreign(desk, tenant=""),
        "a tenant that is a number": foreign(desk, tenant=7),
        "a tenant in a list": foreign(desk, tenant=["default"]),
        "an unknown role": foreign(desk, role="root"),
        "no role": foreign(desk, role=None),
        "a role in a list": foreign(desk, role=["admin"]),
        "a changed body": f"{head}.{b64(claims(desk, role='super_admin'))}.{signature}",
        "a changed signature": f"{head}.{body}.{signature[:-4]}AAAA",
        "our header, their body": f"{b64({'alg': 'HS256'})}.{body}.{signature}",
        "huge": f"{head}.{'A' * 20_000}.{signature}",
        "no signature": f"{head}.{body}.",
    }
    for name, token in tokens.items():
        assert desk.code(ask(desk, token)) == (401, "AUTHENTICATION_FAILED"), name
        assert token not in json.dumps(desk.audit())
    assert ask(desk, genuine)[0] == 200


def test_own_tokens_are_not_made_for_another_key_or_database(desk_of, desk):
    other = desk_of()
    token = own(other)
    assert ask(desk, token)[0] == 401


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[jwt]\nissuer = "i"\naudience = "a"', "either public_key or public_key_file"),
        ('[jwt]\npublic_key = "x"\nissuer = "i"\naudience = "a"', "cannot be read"),
        ('[jwt]\npublic_key_file = "missing.pem"\nissuer = "i"\naudience = "a"', "cannot be read"),
        (f"[jwt]\npublic_key = '''{pem(KEY)}'''\naudience = 'a'", "required"),
        (f"[jwt]\npublic_key = '''{pem(KEY)}'''\nissuer = 'i'", "required"),
        (
            f"[jwt]\npublic_key = '''{pem(ec.generate_private_key(ec.SECP256R1()))}'''\nissuer='i'\naudience='a'",
            "no RSA",
        ),
        (
            f"[jwt]\npublic_key = '''{pem(rsa.generate_private_key(65537, 1024))}'''\nissuer='i'\naudience='a'",
            "fewer than 2048 bits",
        ),
    ],
)
def test_a_public_key_that_cannot_be_used_is_told_at_the_start(text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_policy(text)


@pytest.mark.parametrize(("bits", "good"), [(2047, False), (2048, True)])
def test_a_public_key_has_2048_bits_at_least(bits, good):
    numbers = rsa.RSAPublicNumbers(65537, 2 ** (bits - 1) + 1).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    text = numbers.public_bytes(serialization.Encoding.PEM, form).decode()
    assert public_key_issue(text) == ("" if good else "the key has fewer than 2048 bits")


def test_a_token_is_read_up_to_its_longest(desk):
    given = jwt.decode(own(desk), options={"verify_signature": False})
    (secret,) = desk.store.rows("SELECT value FROM secrets WHERE name = 'token'")

    def token(filled, rest=""):
        said = {**given, "filled": "f" * filled}
        return jwt.encode(said, bytes(secret[0]), algorithm="HS256", headers={"rest": rest})

    for length, status in ((8192, 200), (8193, 401)):
        about = (length - len(token(0))) * 3 // 4  # base64 has no text of some lengths
        made = [token(about + more, rest) for more in range(-4, 5) for rest in ("", "x", "xx")]
        assert ask(desk, next(one for one in made if len(one) == length))[0] == status


def test_a_token_of_our_own_is_looked_at_in_all_it_says(desk):
    given = jwt.decode(own(desk), options={"verify_signature": False})
    (secret,) = desk.store.rows("SELECT value FROM secrets WHERE name = 'token'")
    now = int(desk.time)
    good = [
        {}, {"nbf": now + 0.5}, {"nbf": now + 30}, {"iat": now + 30}, {"exp": now + 1},
        {"round": None},  # nobody has signed out everywhere
    ]  # fmt: skip
    bad = [
        {"nbf": now + 31}, {"iat": now + 31}, {"exp": now}, {"nbf": True}, {"iat": True}, {"exp": True}, {"nbf": "1"},
        {"round": 1}, {"sub": "key:²"}, {"sub": "key:٢"}, {"sub": "key:-1"}, {"sub": "user:2"}, {"sub": "key"},
        {"sub": "key: 2"}, {"sub": "key:+2"}, {"sub": "key:0_2"},
        {"sub": "key:" + "9" * 18}, {"sub": "key:" + "9" * 19}, {"sub": "key:" + "9" * 5000},
    ]  # fmt: skip
    for changed in (*good, *bad):
        said = {name: value for name, value in {**given, **changed}.items() if value is not None}
        status, answer = ask(desk, jwt.encode(said, bytes(secret[0]), algorithm="HS256"))
        assert status == (200 if changed in good else 401), (changed, answer)


def test_a_public_key_in_a_file_beside_the_policy(tmp_path):
    (tmp_path / "id.pem").write_text(pem(KEY))
    (tmp_path / "policy.toml").write_text('[jwt]\npublic_key_file = "id.pem"\nissuer = "i"\naudience = "a"')
    assert load_policy(tmp_path / "policy.toml").token_key.public_key == pem(KEY)


def test_a_masked_bearer_beside_the_key_is_noted(desk):
    body = {"agent_id": "a", "action_type": "read"}
    desk.post("/api/v1/actions/submit", body, authorization="Bearer owkai_***")
    assert "X-API-Key counted" in desk.audit()[-1][1]["credentials"]
    desk.post("/api/v1/actions/submit", body, authorization=f"Bearer {desk.user}")
    assert "credentials" not in desk.audit()[-1][1]


# --- what a request presents


def token_of(head):
    return f"{base64.urlsafe_b64encode(head.encode()).decode().rstrip('=')}.e30.c2ln"


@pytest.mark.parametrize("head", ['{"a":1}', '{"a":12}', '{"a":123}', '{"a":"ÿ?"}'])
def test_a_bearer_token_that_begins_with_an_object_is_a_json_web_token(head):
    token = token_of(head)
    assert presented({"authorization": f"Bearer {token}"}) == (None, token)
    assert presented({"authorization": f"bearer  {token} "}) == (None, token)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, (None, None)),
        ({"authorization": "Bearer "}, (None, None)),
        ({"authorization": "Bearer"}, (None, None)),
        ({"authorization": "Basic abc"}, (None, None)),
        ({"authorization": "Bearer key"}, ("key", None)),
        ({"authorization": f"Bearer {token_of('[1]')}"}, (token_of("[1]"), None)),
        ({"authorization": "Bearer x.y.z"}, ("x.y.z", None)),
        ({"authorization": f"Bearer {token_of('{}')}", "x-api-key": " key "}, ("key", None)),
        ({"authorization": "Bearer key", "x-api-key": " "}, ("key", None)),
    ],
)
def test_else_it_is_a_key(headers, found):
    assert presented(headers) == found


@pytest.mark.parametrize(
    ("own", "authorization", "contradict"),
    [
        ("key", "Bearer other", True),
        ("key", "Bearer key", False),
        ("key", "Basic other", False),
        ("key", "Bearer ", False),
        ("key", None, False),
        ("", "Bearer other", False),
        (None, "Bearer other", False),
        ("schlüssel", "Bearer other", True),
    ],
)
def test_two_keys_that_differ_contradict_each_other(own, authorization, contradict):
    given = {"x-api-key": own, "authorization": authorization}
    assert contradicts({name: value for name, value in given.items() if value is not None}) is contradict


# --- limits


def test_a_foreign_token_is_nobodys_where_no_issuer_is_configured(desk_of, desk):
    without = desk_of()
    without.time = desk.time
    assert without.code(ask(without, foreign(desk))) == (401, "AUTHENTICATION_FAILED")


def test_the_idlest_subject_is_forgotten_once_there_are_too_many_and_not_before():
    window = Window(subjects=2)
    for subject in ("b", "a"):
        window.take(subject, 1, 0.0)
    assert [window.take(subject, 1, 1.0).retry_after for subject in ("a", "b")] == [59, 59]
    window.take("c", 1, 2.0)
    assert window.take("b", 1, 3.0).retry_after
    assert not window.take("a", 1, 3.0).retry_after


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
    ],
)
def test_what_counts_as_one_address(address, network):
    assert network_of(address) == network


def test_only_three_parts_whose_first_is_an_object_are_a_token(desk):
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
    other = base64.urlsafe_b64encode(b'"alg":"HS256"').decode().rstrip("=")
    for token, what in (
        (f"{head}.e30.x", "token"),
        (f"{head}.e30.", "token"),
        (head, "key"),
        (f"{head}.e30", "key"),
        (f"{head}.e30.x.y", "key"),
        (f"{other}.e30.x", "key"),
    ):
        assert what in ask(desk, token)[1]["error"]["message"]


def test_submissions_are_limited_for_each_key_by_itself(desk_of):
    desk = desk_of("[limits]\nsubmit = 3")
    for left in (2, 1, 0):
        assert desk.submit()[0] == 200
        assert desk.headers["x-ratelimit-limit"] == "3" and desk.headers["x-ratelimit-remaining"] == str(left)
        assert 0 <= 1_700_000_060 - int(desk.headers["x-ratelimit-reset"]) < 10  # PostgreSQL's own clock goes on
        desk.later(10)
    assert desk.code(desk.submit()) == (429, "RATE_LIMITED")
    assert 20 < int(desk.headers["retry-after"]) <= 30 and desk.headers["x-ratelimit-remaining"] == "0"
    assert desk.submit(key="peer")[0] == 200
    assert desk.get("/api/v1/actions")[0] == 200
    desk.later(30)
    assert desk.submit()[0] == 200
    assert desk.submit()[0] == 429


def test_the_documented_limits_hold_unless_told(desk):
    for _ in range(1000):
        assert desk.post("/api/v1/actions/submit", {})[0] == 400
    assert desk.post("/api/v1/actions/submit", {})[0] == 429
    for _ in range(100):
        assert desk.get("/api/analytics/trends")[0] == 200
    assert desk.get("/api/analytics/trends")[0] == 429
    for _ in range(50):
        assert desk.post("/api/registry/commands", {}, key="admin")[0] == 400
    assert desk.post("/api/registry/commands", {}, key="admin")[0] == 429
    desk.later(61)
    assert desk.submit()[0] == 200


def test_every_endpoint_has_a_limit():
    """Each is counted as something, and what it is counted as has a limit unless somebody lifts it."""
    limits = parse_policy("").limits
    assert {route.counted_as for route in TABLE} == {"submit", "report", "read", "list", "analytics", "admin"}
    assert all(limits.of(route.counted_as) > 0 for route in TABLE)
    for route in TABLE:
        if route.admin:
            assert route.counted_as == "admin", route.path


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("read", "GET", "/api/sdk/kill-switch/status"),
        ("read", "GET", "/api/v1/actions/1/status"),
        ("list", "GET", "/api/v1/actions"),
        ("list", "GET", "/audit/logs"),
        ("report", "POST", "/api/agent-action/1/complete"),
        ("report", "POST", "/api/agents/health/heartbeat"),
    ],
)
def test_what_is_not_submitted_is_limited_too(desk_of, name, method, path):
    desk = desk_of(f"[limits]\n{name} = 2")
    desk.submit()
    assert 429 not in [desk.call(method, path)[0] for _ in range(2)]
    status, answer = desk.call(method, path)
    assert (status, answer["error"]["details"]) == (429, {"limit": 2, "allowance": name})
    assert desk.call(method, path, key="peer")[0] != 429


def test_outcomes_and_single_readings_go_with_the_submissions():
    def limits(text):
        found = parse_policy(text).limits
        return found.of("report"), found.of("read")

    assert limits("") == (3000, 12_000)
    assert limits("[limits]\nsubmit = 5000") == (15_000, 60_000)
    assert limits("[limits]\nsubmit = 10") == (3000, 12_000)
    assert limits("[limits]\nsubmit = 0") == (0, 0)
    assert limits("[limits]\nsubmit = 0\nread = 7") == (0, 7)


def test_limits_of_single_keys_and_none_for_local(desk_of):
    desk = desk_of('[limits]\nsubmit = 1\n[[key_limit]]\nkey = "u"\nsubmit = 2\n[[key_limit]]\nkey = 3\nsubmit = 0')
    assert [desk.submit()[0] for _ in range(3)] == [200, 200, 429]
    assert [desk.submit(key="admin")[0] for _ in range(2)] == [200, 429]
    assert {desk.submit(key="peer")[0] for _ in range(20)} == {200} and "x-ratelimit-limit" not in desk.headers
    body = json.dumps({"agent_id": "a", "action_type": "read"}).encode()
    for _ in range(5):
        answer = desk.authority.handle("POST", "/api/v1/actions/submit", "", {}, body, credential=LOCAL)
        assert answer[0] == 200


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[limits]\nsubmit = -1", "limits: submit"),
        ("[limits]\nsubmits = 1", "limits: submits"),
        ("limits = 1", "limits"),
        ("[[key_limit]]\nsubmit = 1", "key_limit 1: key"),
        ('[[key_limit]]\nkey = "a"\n[[key_limit]]\nkey = "a"', "key_limit 2: key"),
    ],
)
def test_wrong_limits_are_told(text, where):
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(text)
    assert caught.value.problems[0].where == f"policy.toml: {where}"


def test_failed_sign_ins_are_limited_for_each_address_and_harm_no_valid_key(desk):
    def bad(client, key="owkai_user_wrong"):
        return desk.get(WHERE, key=key, client=client)[0]

    assert [bad("198.51.100.7") for _ in range(6)] == [401] * 5 + [429]
    assert 1 <= int(desk.headers["retry-after"]) <= 60
    assert desk.get(WHERE, client="198.51.100.7")[0] == 200
    assert bad("198.51.100.8") == 401
    assert ask(desk, "eyJhbGciOiJub25lIn0.e30.", client="198.51.100.7")[0] == 429
    assert desk.get(WHERE, key=None, client="198.51.100.7")[0] == 401
    assert [bad(f"2001:db8::{n}") for n in range(6)] == [401] * 5 + [429]
    assert bad("2001:db8:0:1::1") == 401
    desk.later(61)
    assert bad("198.51.100.7") == 401


# --- versions and repetition


def test_versions_of_the_api(desk):
    assert desk.get("/api/v1/actions", x_api_version="2025-12-01")[1]["status"] == "success"
    for version in ("2024-01-01", "v1", "", "2025-12-01, 2025-12-01"):
        status, answer = desk.get("/api/v1/actions", x_api_version=version)
        assert (status, answer["error"]["code"]) == (400, "UNSUPPORTED_API_VERSION"), version
    assert desk.get("/health", x_api_version="1")[0] == 400


def test_fifty_repeats_at_once_are_one_action(desk_of, database):
    desk = desk_of(path=database)
    body = json.dumps({"agent_id": "a", "action_type": "read"}).encode()
    headers = {"x-api-key": desk.user, "idempotency-key": "unique-request-id-123"}
    answers = []
    start = threading.Barrier(50)

    def submit():
        start.wait()
        answers.append(desk.authority.handle("POST", "/api/v1/actions/submit", "", headers, body))

    together(*[submit] * 50)
    assert {status for status, _, _ in answers} == {200}
    assert {json.loads(content)["action_id"] for _, _, content in answers} == {"1"}
    assert sum("idempotency-replayed" in told for _, told, _ in answers) == 49
    assert desk.get("/api/v1/actions")[1]["total"] == 1
    other = json.dumps({"agent_id": "b", "action_type": "read"}).encode()
    assert desk.authority.handle("POST", "/api/v1/actions/submit", "", headers, other)[0] == 409


def test_a_repeat_is_of_the_same_key_path_and_a_success(desk):
    body = {"agent_id": "a", "action_type": "read"}
    first = desk.post("/api/v1/actions/submit", body, idempotency_key="k")[1]["action_id"]
    assert desk.post("/api/v1/actions/submit", body, key="peer", idempotency_key="k")[1]["action_id"] != first
    assert desk.post("/api/registry/agents", {"agent_id": "a"}, idempotency_key="k")[0] == 201
    assert desk.post("/api/registry/agents", {"agent_id": "a"}, idempotency_key="k")[0] == 201
    assert desk.events().count("AGENT_REGISTERED") == 1
    assert desk.post("/api/v1/actions/submit", {"agent_id": "a"}, idempotency_key="x")[0] == 400
    assert desk.post("/api/v1/actions/submit", body, idempotency_key="x")[0] == 200


@pytest.mark.anyio
async def test_fifty_repeats_that_share_commits_are_one_action(desk_of, database):
    desk = desk_of(path=database)
    service = Service(desk.authority)
    await service.start()
    headers = {"x-api-key": desk.user, "idempotency-key": "k"}
    bodies = [json.dumps({"agent_id": "a", "action_type": kind}).encode() for kind in ("read", "write")]
    try:
        asked = [service.answer("POST", "/api/v1/actions/submit", "", headers, bodies[n % 25 == 24]) for n in range(50)]
        answers = await asyncio.gather(*asked)
    finally:
        await service.stop()
    assert sorted(status for status, _, _ in answers) == [200] * 48 + [409] * 2
    assert {json.loads(content)["action_id"] for status, _, content in answers if status == 200} == {"1"}
    assert desk.get("/api/v1/actions")[1]["total"] == 1


@pytest.mark.parametrize("change", ["body", "query", "envelope"])
def test_an_idempotency_key_is_for_one_body_query_and_form_alone(desk, change):
    body = {"agent_id": "a", "action_type": "data_access", "resource": "r"}
    path, name = "/api/v1/actions/submit", {"idempotency_key": "k"}
    assert desk.post(path, body, **name)[0] == 200
    assert desk.post(path, body, **name)[0] == 200 and desk.headers["idempotency-replayed"] == "true"
    other = {
        "body": lambda: desk.post(path, {**body, "resource": "s"}, **name),
        "query": lambda: desk.post(path, body, query="x=1", **name),
        "envelope": lambda: desk.post("/api/v2/actions/submit", body, **name),
    }
    assert desk.code(other[change]()) == (409, "IDEMPOTENCY_CONFLICT")
    assert desk.get("/api/v1/actions")[1]["total"] == 1


def test_a_clock_that_is_set_back_locks_nobody_out_and_frees_nobody_for_ever(desk):
    window = Window()
    assert [window.take("k", 2, 1000.0).retry_after for _ in range(3)] == [0, 0, 60]
    assert window.take("k", 2, 400.0).retry_after == 0  # ten minutes back: what is to come does not count
    assert [window.take("k", 2, at).retry_after for at in (401.0, 402.0, 459.0, 460.0)] == [0, 58, 1, 0]
    assert window.take("k", 2, 1059.9).retry_after == 0
    desk.post(
        "/api/registry/agents/a/commands",
        {"command_type": "RATE_LIMIT", "reason": "r", "parameters": {"max_per_minute": 2}},
        key="admin",
    )
    assert [desk.submit()[0] for _ in range(3)] == [200, 200, 429]
    desk.time -= 3600
    assert [desk.submit()[0] for _ in range(3)] == [200, 200, 429]
    assert desk.headers["retry-after"] == "60"
    desk.later(60)
    assert desk.submit()[0] == 200
