"""What the command line manages: agents and commands, models, MCP servers, approvers; and what it explains."""

import json

import pytest
from kit.desk import POLICY

from ascend_middleware.authority import Authority, Role, parse_policy
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConfigurationError


@pytest.fixture
def place(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def desk(desk_of, policy_database):
    desk = desk_of(path=policy_database)
    yield desk
    assert desk.store.verify_audit() is None


@pytest.fixture
def run(capsys, place):
    def run(*argv, code=0):
        try:
            found = main([*map(str, argv), "--policy", str(place / "policy.toml")])
        except SystemExit as error:
            found = error.code
        out = capsys.readouterr()
        assert found == code, out.out + out.err
        return out.out if code in (0, 1) and out.out else out.err

    return run


def test_agents_are_blocked_and_released_at_once(desk, run):
    desk.post("/api/registry/agents", {"agent_id": "a"})
    assert "BLOCK issued to agent a" in run("agents", "block", "a", "--reason", "odd")
    assert desk.code(desk.submit()) == (403, "AGENT_BLOCKED")
    command = desk.get("/api/registry/agents/a/commands")[1]["commands"][0]
    assert (command["issued_by"], command["issued_via"], command["reason"]) == ("local-operator", "cli", "odd")
    run("agents", "unblock", "a", "--reason", "fine")
    assert desk.submit()[0] == 200
    run("agents", "quarantine", "ghost", "--reason", "seen")
    run("agents", "rate-limit", "a", "--per-minute", 1, "--reason", "slow")
    assert desk.code(desk.submit()) == (429, "AGENT_RATE_LIMITED")
    lines = run("agents", "list").splitlines()
    assert lines == ["rate_limited  a  (slow)", "quarantined   ghost  not registered  (seen)"]
    assert desk.events().count("AGENT_COMMAND_ISSUED") == 4


def test_a_broadcast_is_for_all_and_must_be_meant(desk, run):
    assert "with --all" in run("agents", "block", "--reason", "r", code=2)
    assert "with --all" in run("agents", "block", "a", "--all", "--reason", "r", code=2)
    answer = json.loads(run("agents", "suspend", "--all", "--reason", "drill", "--json"))
    assert (answer["is_broadcast"], answer["target_type"]) == (True, "organization")
    assert desk.code(desk.submit(agent_id="anybody")) == (403, "KILL_SWITCH_ACTIVE")
    assert desk.submit(key="stranger")[0] == 200
    assert "whole organisation is suspended" in run("agents", "list")
    assert json.loads(run("agents", "list", "--json"))["organization"] == "suspended"
    run("agents", "unblock", "--all", "--reason", "over")
    assert desk.submit()[0] == 200


def test_commands_that_make_no_sense_are_refused(desk, run):
    assert "max_per_minute" in run("agents", "rate-limit", "a", "--per-minute", 0, "--reason", "r", code=1)
    assert "reason" in run("agents", "block", "a", "--reason", " ", code=1)
    assert desk.submit()[0] == 200


def test_an_agents_words_steer_no_terminal(desk, run):
    run("agents", "block", "evil\x1b[2J", "--reason", "x\x1b[2J")
    assert "\x1b" not in run("agents", "list")


def test_models_by_number_and_name(desk, run):
    assert "no models" in run("models", "list")
    run("models", "add", 9, "--name", "new")
    assert desk.submit(model_id=9)[1]["model_governance"]["model_id"] == 9
    assert desk.submit(model_id="new")[0] == 200
    assert desk.submit(model_id="new", key="stranger")[0] == 403
    run("models", "status", 9, "denied")
    assert desk.code(desk.submit(model_id="new")) == (403, "MODEL_NOT_APPROVED_DENY")
    assert "denied" in run("models", "list")
    run("models", "add", 9, code=1)
    run("models", "add", 10, "--name", "new", code=1)
    run("models", "add", 11, "--name", "12", code=1)
    run("models", "add", 0, code=1)
    run("models", "status", 77, "approved", code=1)
    assert json.loads(run("models", "remove", 9, "--json")) == {"removed": 9}
    assert desk.code(desk.submit(model_id=9)) == (403, "MODEL_UNREGISTERED_DENY")
    assert [event for event in desk.events() if event.startswith("MODEL_") and "GOV" not in event] == [
        "MODEL_REGISTERED",
        "MODEL_STATUS_CHANGED",
        "MODEL_REMOVED",
    ]


def test_the_numbers_of_models_have_bounds_and_their_names_are_no_duty(desk, run):
    for number in (0, 2**53 + 1):
        assert "number is 1 or more" in run("models", "add", number, code=1)
    for number in (1, 2**53):
        run("models", "add", number)
        assert desk.submit(model_id=number)[0] == 200


def test_the_command_line_withdraws_a_model_of_the_policy_file_but_cannot_approve_a_denied_one(desk, run):
    run("models", "add", 7, "--status", "denied")
    for model in (7, "7", "good"):
        assert desk.code(desk.submit(model_id=model)) == (403, "MODEL_NOT_APPROVED_DENY")
    run("models", "add", 8, "--status", "approved")
    assert desk.code(desk.submit(model_id=8)) == (403, "MODEL_NOT_APPROVED_DENY")


def test_mcp_servers(desk, run):
    assert "no MCP servers" in run("mcp-servers", "list")
    run("mcp-servers", "add", "shell", "--block-tool", "rm", "--description", "d")
    assert desk.submit(mcp_server_name="shell")[0] == 200
    assert desk.submit(mcp_server_name="shell", tool_name="rm")[0] == 403
    assert run("mcp-servers", "list") == "active    shell  without rm\n"
    run("mcp-servers", "deactivate", "shell", "--reason", "odd")
    assert desk.code(desk.submit(mcp_server_name="shell")) == (403, "MCP_SERVER_DEACTIVATED_DENY")
    assert "inactive  shell" in run("mcp-servers", "list")
    run("mcp-servers", "activate", "shell")
    assert desk.submit(mcp_server_name="shell")[0] == 200
    run("mcp-servers", "block", "shell", "--reason", "cve")
    assert desk.code(desk.submit(mcp_server_name="shell")) == (403, "MCP_SERVER_BLOCKED_DENY")
    run("mcp-servers", "unblock", "shell", "--reason", "fixed")
    assert desk.submit(mcp_server_name="shell")[0] == 200
    run("mcp-servers", "remove", "shell")
    assert desk.code(desk.submit(mcp_server_name="shell")) == (403, "MCP_SERVER_UNREGISTERED_DENY")
    for task in ("activate", "deactivate", "remove"):
        assert "no MCP server" in run("mcp-servers", task, "shell", code=1)
    run("mcp-servers", "add", "x\n", code=1)
    assert json.loads(run("mcp-servers", "list", "--json")) == {"servers": []}


def test_a_server_that_a_user_registered_is_activated_here(desk, run):
    desk.post("/api/registry/mcp-servers", {"server_name": "mine"})
    assert "not activated by an admin yet" in run("mcp-servers", "list")
    run("mcp-servers", "activate", "mine")
    assert desk.submit(mcp_server_name="mine")[0] == 200


def test_the_command_line_asks_the_api_and_the_audit_log_says_so(desk, run):
    run("agents", "block", "team/bot", "--reason", "odd")  # in a URL this would be two segments
    run("mcp-servers", "add", "a/b", "--block-tool", "rm")
    run("mcp-servers", "deactivate", "a/b")
    assert desk.code(desk.submit(agent_id="team/bot")) == (403, "AGENT_BLOCKED")
    data = dict(desk.audit())
    assert (data["AGENT_COMMAND_ISSUED"]["issued_via"], data["AGENT_COMMAND_ISSUED"]["key"]) == ("cli", None)
    for event in ("MCP_SERVER_REGISTERED", "MCP_SERVER_DEACTIVATED"):
        assert data[event]["via"] == "command line" and "key" not in data[event]
    assert data["MCP_SERVER_REGISTERED"]["blocked_tools"] == ["rm"]


def test_what_the_command_line_may_not_decide_is_refused_and_kept_in_the_audit_log(desk, run):
    run("approvers", "set", "high", "--approver", "boss")
    number = desk.submit("transaction", amount=5000)[1]["action_id"]
    assert "decided by boss" in run("approve", number, code=1)
    assert desk.events()[-1] == "DECISION_REFUSED"


def test_a_policy_file_that_is_being_edited_stops_no_kill_switch(desk, place, run):
    (place / "policy.toml").write_text("[[policy]\n")
    run("agents", "block", "--all", "--reason", "now")
    assert run("pending") == "nothing is pending\n"
    assert desk.code(desk.submit()) == (403, "KILL_SWITCH_ACTIVE")
    assert "TOML" in run("explain-policy", "read", code=2)


def test_approvers_of_a_risk_level(desk, run):
    number = desk.submit("transaction", amount=5000)[1]["action_id"]
    run("approvers", "set", "high", "--count", 2, "--approver", "boss", "--approver", "chief")
    assert run("approvers", "list") == "high      2 of boss, chief\n"
    later = desk.submit("transaction", amount=5000)[1]
    assert later["required_approvers"] == ["boss", "chief"]
    # An action's terms are those of its submission.
    assert desk.post(f"/api/v1/actions/{number}/approve", key="admin")[1]["status"] == "approved"
    answer = desk.post(f"/api/v1/actions/{later['action_id']}/approve", key="admin")[1]
    assert (answer["status"], answer["pending_approvers"]) == ("pending", ["chief"])
    assert desk.submit("file_delete", key="stranger")[1]["required_approvers"] == ["admin"]
    run("approvers", "set", "high", "--count", 3, "--approver", "boss", code=1)
    run("approvers", "set", "high", "--approver", "boss", "--approver", "BOSS", code=1)
    for count in (0, 21):
        assert "count must be 1 to 20" in run("approvers", "set", "high", "--count", count, code=1)
    run("approvers", "set", "medium", "--count", 20)
    run("approvers", "clear", "medium")
    run("approvers", "set", "high", "--count", 3)
    assert desk.submit("file_delete")[1]["required_approvers"] == ["admin"] * 3
    run("approvers", "clear", "high")
    assert desk.submit("file_delete")[1]["required_approvers"] == ["admin"]
    assert "nothing is set" in run("approvers", "list")
    run("approvers", "clear", "high", code=1)
    assert desk.events().count("APPROVERS_SET") == 3


def test_approvers_whom_no_key_can_be_are_told(desk, place, capsys):
    def warned(*argv):
        assert main(["approvers", *argv, "--policy", str(place / "policy.toml")]) == 0
        return capsys.readouterr().err.splitlines()

    said = "ascend-middleware: warning: approvers of high risk: no admin key has the name 'chief', 'u'"
    nobody = "; 2 people must approve, and there are admin keys of 1"
    three = ("--approver", " BOSS", "--approver", "chief", "--approver", "u")
    assert warned("set", "high", *three) == [said]  # u has a key, and no admin's
    assert warned("set", "high", "--count", "2", *three) == [said + nobody]
    assert warned("list") == [said + nobody]
    main(["approvers", "list", "--json", "--policy", str(place / "policy.toml")])
    assert json.loads(capsys.readouterr().out)["warnings"] == [(said + nobody).split("warning: ")[1]]
    desk.store.issue_key(name="Chief", role=Role.SUPER_ADMIN, tenant="default")
    assert warned("set", "high", "--count", "2", "--approver", "boss", "--approver", "chief") == []
    assert warned("set", "low", "--count", "3") == []  # boss, Chief and the command line
    desk.store.revoke_key(5)
    assert warned("list") == [
        "ascend-middleware: warning: approvers of high risk: no admin key has the name 'chief'" + nobody,
        "ascend-middleware: warning: approvers of low risk: 3 people must approve, and there are admin keys of 2",
    ]
    assert warned("set", "low", "--approver", "local-operator") == []
    (nobody,) = warned("set", "critical", "--approver", "s")  # whose key is another organisation's
    assert "no admin key has the name 's'" in nobody


def test_the_list_shows_the_policy_files_approvers_too(desk, place, run):
    (place / "policy.toml").write_text(POLICY + '[approvals.critical]\ncount = 1\napprovers = ["boss"]\n')
    run("approvers", "set", "high", "--approver", "boss")
    assert run("approvers", "list").splitlines() == ["high      1 of boss", "critical  1 of boss  (policy file)"]


def test_what_can_never_come_true_is_told_when_an_authority_is_opened(desk_of, policy_database, tmp_path, caplog):
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[approvals.critical]\ncount = 2\napprovers = ["alice", "bob"]\n[[key_limit]]\nkey = "ci"\nsubmit = 1\n'
    )
    Authority.open(policy, policy_database).close()
    assert caplog.messages == [
        "approvers of critical risk: no admin key has the name 'alice', 'bob'; 2 people must approve, and there are "
        "admin keys of 0",
        "key_limit: there is no key 'ci'",
    ]
    desk = desk_of(path=policy_database)
    for name, role in (("Alice", Role.ADMIN), ("BOB", Role.ADMIN), ("ci", Role.USER)):
        desk.store.issue_key(name=name, role=role, tenant="default")
    rule = {"name": "old", "condition": "true", "action": "deny", "action_types": ["x"]}
    assert desk.post("/api/smart-rules", rule, key="admin")[0] == 201
    with desk.store.write():  # as an earlier version took it
        desk.store.execute("UPDATE records SET fields = replace(fields, '\"x\"', '\"*x\"') WHERE kind = 'smart_rule'")
    desk.authority.close()
    caplog.clear()
    Authority.open(policy, policy_database).close()
    (told,) = caplog.messages
    assert told.startswith("organisation default, smart_rule 'old': action_types: '*x' can match nothing")


def test_explaining_a_decision_by_policy_threshold_and_signals(place, run):
    text = run("explain-policy", "transaction", "--details", '{"amount": 5000}', code=1)
    assert text.splitlines() == [
        "pending: policy 'large'",
        "risk score 75 (high)",
        "   +50  transaction  from action_type",
        "policy file 'large' says pending",
    ]
    text = run(
        "explain-policy",
        "file_write",
        "--risk-indicators",
        '{"pii": true}',
        "--context",
        '{"source": "external"}',
        code=1,
    )
    assert "+15  pii  from risk_indicators" in text and "+10  context.source  from context" in text
    assert "a person from 60, denied from 90" in text
    assert run("explain-policy", "read").startswith("approved: risk score 10")
    assert "violation: the MCP server 'x' is not registered" in run(
        "explain-policy", "read", "--mcp-server", "x", code=1
    )
    assert "violation: the model is denied" in run("explain-policy", "read", "--model", "8", code=1)
    assert not (place / "policy.db").exists()


def test_explaining_reads_the_database_and_stores_nothing(desk, run, place):
    rule = {"name": "red", "condition": "action.context.team == 'red'", "action": "deny"}
    desk.post("/api/smart-rules", rule, key="admin")
    run("agents", "block", "bad", "--reason", "r")
    before = desk.events()
    (place / "action.json").write_text(json.dumps({"action_type": "read", "agent_id": "a", "context": {"team": "red"}}))
    answer = json.loads(run("explain-policy", "--action", place / "action.json", "--json", code=1))
    assert (answer["decision"], answer["policy_matched"], answer["dry_run"]) == ("denied", "red", True)
    assert "the kill switch says blocked" in run(
        "explain-policy", "read", "--agent-id", "bad", "--context", '{"team": "blue"}', code=1
    )
    assert desk.events() == before and desk.get("/api/v1/actions")[1]["total"] == 0


def test_explaining_needs_an_action(run, place):
    assert "name the type" in run("explain-policy", code=2)
    assert "not JSON" in run("explain-policy", "read", "--details", "{", code=2)
    assert "JSON object" in run("explain-policy", "read", "--details", "[]", code=2)
    assert "cannot be read" in run("explain-policy", "--action", place / "none.json", code=2)
    (place / "bad.json").write_text('{"action_type": "read", "context": 3}')
    assert "context" in run("explain-policy", "--action", place / "bad.json", code=2)


def test_a_compliance_status_of_the_file_is_one_of_the_words():
    with pytest.raises(ConfigurationError, match="expected one of approved"):
        parse_policy('[[model]]\nid = 1\ncompliance_status = "aproved"')
