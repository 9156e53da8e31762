"""Commands from an SQS queue: a real boto3 against moto's server."""

import json
import time

import pytest
from kit.processes import wait_until
from kit.states import state_at

from ascend_middleware.api.orders import EVERYBODY
from ascend_middleware.exceptions import AscendError
from ascend_middleware.killswitch.poller import CommandHandler, QueueConsumer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sqs():
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
    yield boto3.client("sqs", endpoint_url=f"http://{host}:{port}", **credentials), f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def queue(sqs, monkeypatch):
    client, endpoint = sqs
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    url = client.create_queue(
        QueueName=f"ascend-agent-control-org-4-{time.monotonic_ns()}", Attributes={"VisibilityTimeout": "0"}
    )["QueueUrl"]
    yield client, url
    client.delete_queue(QueueUrl=url)


@pytest.fixture
def state():
    return state_at()


@pytest.fixture
def receive(queue, state):
    confirmed = []
    receiver = QueueConsumer(
        queue[1], CommandHandler(state, organization_id="4"), confirm=lambda: confirmed.append(time.monotonic())
    )

    def until(condition, seconds=60):
        wait_until(lambda: condition() or receiver(), seconds=seconds)
        assert confirmed

    return until


def body(kind="BLOCK", at=0.0, **more):
    return {
        "command_id": f"{kind}-{at}",
        "command_type": kind,
        "target_type": "agent",
        "agent_id": "bot",
        "organization_id": 4,
        "reason": "r",
        "issued_at": time.time() + at,
        **more,
    }


def left(client, url):
    answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def block_of(state, target="bot"):
    order = state.snapshot(now=0).orders.get((target, "block"))
    return None if order is None else order.kind


@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "SNS"])
def test_raw_and_wrapped_commands_are_applied_and_deleted(queue, state, receive, wrapped):
    client, url = queue
    text = json.dumps(body())
    if wrapped:
        text = json.dumps({"Type": "Notification", "MessageId": "m", "Message": text})
    client.send_message(QueueUrl=url, MessageBody=text)
    receive(lambda: block_of(state) == "BLOCK")
    assert left(client, url) == 0


def test_duplicates_and_reordered_messages(queue, state, receive):
    client, url = queue
    for message in (body("UNBLOCK", -5.0), body(), body(), body("UNBLOCK", -9.0), body(is_broadcast=True)):
        client.send_message(QueueUrl=url, MessageBody=json.dumps(message))
    receive(lambda: left(client, url) == 0)
    assert block_of(state) == "BLOCK"
    client.send_message(QueueUrl=url, MessageBody=json.dumps(body("UNBLOCK", 5.0)))
    receive(lambda: block_of(state) == "UNBLOCK")


def test_foreign_malformed_and_unknown_messages_stay_and_hinder_nothing(queue, state, receive, caplog):
    client, url = queue
    strange = [
        json.dumps(body("UNBLOCK", organization_id=5)),
        json.dumps(body("PARDON")),
        "nonsense",
        json.dumps({"Type": "SubscriptionConfirmation"}),
        json.dumps(body(target_type="mcp_server", mcp_server="files")),
    ]
    for text in [*strange, json.dumps(body(agent_id=None))]:
        client.send_message(QueueUrl=url, MessageBody=text)
    receive(lambda: block_of(state, EVERYBODY) == "BLOCK")
    assert block_of(state) is None
    receive(lambda: all(text in caplog.text for text in ("organisation '5'", "PARDON", "malformed")))
    assert left(client, url) == len(strange)


def test_a_queue_that_cannot_be_used_is_an_error_of_ours(queue, state):
    receiver = QueueConsumer(f"{queue[1]}-missing", CommandHandler(state, organization_id="4"), confirm=lambda: None)
    with pytest.raises(AscendError, match="queue cannot be used"):
        receiver()
