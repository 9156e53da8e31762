"""What the masking filter hides, and what it leaves readable."""

import itertools
import logging
import sys
import threading
import time

import pytest

from ascend_middleware.masking import MaskingFilter, install, mask, mask_text
from ascend_middleware.rules import redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl-_"
SECRETS = [
    ("owkai_live_abc-DEF.ghi+jkl", "abc"),
    ("key=owkai_admin_xyzxyzxyz/=", "xyz"),
    ("ask_0123456789abcdef", "0123"),
    ("sk-proj-ABCDEFGH", "ABCD"),
    ("authorization: bearer abc+def/ghi==", "def"),
    ("Authorization: Basic dTpwYXNz", "dTpw"),
    (f"token {JWT}", "eyJ"),
    ('{"password": "hunter2"}', "hunter2"),
    ("{'client_secret': 'hunter2', 'n': 1}", "hunter2"),
    ("private_key=hunter2&x=1", "hunter2"),
    ("proxy http://user:hunter2@proxy:3128 refused", "hunter2"),
    ("password: password: hunter2", "hunter2"),
    (b"X-API-Key: owkai_live_IN_BYTES", b"IN_BYTES"),
]


@pytest.mark.parametrize(("value", "secret"), SECRETS)
def test_secrets_are_masked(value, secret):
    assert secret not in mask(value)
    assert (b"****" if isinstance(value, bytes) else "****") in mask(value)


@pytest.mark.parametrize(
    "text",
    [
        "POST /api/v1/actions/submit attempt 1: HTTP 200",
        "task_id=5 asked 3",
        "max_tokens=3 maxTokens: 3, token_count=4",
        "mapping: 3, discard=1 author: me, spin=2 PANEL: 7, company=4",
    ],
)
def test_other_text_stays(text):
    assert mask_text(text) == text


def test_long_words_take_no_longer_than_short_ones():
    def seconds(text):
        started = time.thread_time()
        mask_text(text)
        return time.thread_time() - started

    short = max(seconds("the words " * 2_000) for _ in range(3))
    assert seconds("x" * 10_000 + " " + "pass" * 2_500) < 50 * short  # a thousand times, once


def test_nested_containers_and_names():
    value = {"a": ({"token": "t1"}, [b"owkai_live_deepdeep"]), "signing_secret": {"x": 1}, "n": 5, b"password": b"p"}
    masked = mask(value)
    assert masked == {"a": ({"token": "****"}, [b"owkai_****"]), "signing_secret": "****", "n": 5, b"password": "****"}
    assert value["a"][0]["token"] == "t1"


def formatted(caplog_record):
    MaskingFilter().filter(caplog_record)
    return logging.Formatter("%(message)s").format(caplog_record)


def record(msg, *args, **extra):
    made = logging.LogRecord("n", logging.INFO, "f", 1, msg, args, None)
    vars(made).update(extra)
    return made


def test_records_arguments_exceptions_and_extras():
    assert "hunter2" not in formatted(record("%s", {"password": "hunter2"}))
    assert "hunter2" not in formatted(record("%r %d", ("x", {"secret": "hunter2"}), 3))
    assert "EXC" not in formatted(record("%s", ValueError("owkai_live_IN_EXC")))
    try:
        raise ValueError("bad header owkai_live_IN_EXC")
    except ValueError as error:
        made = record("failed")
        made.exc_info = (type(error), error, error.__traceback__)
    text = formatted(made)
    assert "ValueError" in text
    assert "IN_EXC" not in text
    made = record("x", api_key="hunter2", user="u")
    formatted(made)
    assert (made.api_key, made.user) == ("****", "u")
    assert "could not be masked" in formatted(record("%d", "owkai_live_notnumber"))


NAMES = (
    "password passwd passphrase passcode pwd pin otp secret secrets client_secret token tokens access_token jwt bearer "
    "api_key api-key apikey api_keys access_key access-key accesskey private_key private-key privatekey signing_key "
    "encryption_key session_key credential credentials auth authorization proxy-authorization cookie set-cookie csrf "
    "xsrf signature card card_number cardnumber credit_card pan cvv cvv2 cvc cvc2 iban account_number routing_number "
    "ssn social_security social_security_number tax_id passport passport_number card_pin"
).split()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "shape", ["{}=hunter2", '"{}": "hunter2"', "{}: hunter2", "'{}': 'hunter2'", '\\"{}\\": \\"hunter2\\"']
)
def test_what_stands_under_each_name_of_a_secret_is_masked(name, shape):
    for spelt in (name, name.upper(), name.title()):
        assert "hunter2" not in mask_text(f"before {shape.format(spelt)} after")
        assert mask({spelt: "hunter2"}) == {spelt: "****"}
        assert mask({"outer": [{spelt: ["hunter2"]}]}) == {"outer": [{spelt: "****"}]}
        assert redact({"outer": [{spelt: ["hunter2"]}]}) == {"outer": [{spelt: "[redacted]"}]}


def test_a_records_stack_and_extra_fields_are_masked():
    record = logging.makeLogRecord(
        {"msg": "m", "stack_info": "Stack:\n  call(password='hunter2')", "api_key": "hunter2"}
    )
    record.request = {"headers": {"Authorization": "Bearer hunter2"}}
    assert MaskingFilter("").filter(record)
    assert "hunter2" not in record.stack_info
    assert "Stack:" in record.stack_info
    assert "hunter2" not in repr(vars(record))


def test_masking_is_installed_while_other_threads_make_loggers():
    stopped = threading.Event()

    def make():
        for number in itertools.count():
            if stopped.is_set():
                return
            logging.getLogger(f"made-{number}")

    for number in range(10_000):  # so many that going through them takes a while
        logging.getLogger(f"made-before-{number}")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    maker = threading.Thread(target=make)
    maker.start()
    try:
        for _ in range(40):
            install()
    finally:
        stopped.set()
        maker.join()
        sys.setswitchinterval(interval)
        for name in [name for name in logging.root.manager.loggerDict if name.startswith("made-")]:
            del logging.root.manager.loggerDict[name]
