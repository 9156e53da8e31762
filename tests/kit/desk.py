"""An authority in memory with a clock, and a key of each kind."""

import json

from ascend_middleware.authority import Authority, Role, Store, parse_policy
from kit.databases import behind

POLICY = """
[[policy]]
name = "large"
action_types = ["transaction"]
when = "has(action.action_details.amount) && action.action_details.amount > 1000"
decision = "pending"
risk_score = 75

[[policy]]
name = "no schema"
action_types = ["database_schema"]
decision = "denied"

[[mcp_server]]
name = "files"
blocked_tools = ["rm"]
tool_risks = { write = 70 }

[[model]]
id = 7
name = "good"

[[model]]
id = 8
name = "bad"
compliance_status = "denied"

[[resource_classification]]
resource_type = "database"
sensitivity_level = "high"
compliance_tags = ["GDPR"]
"""


class Desk:
    """Keys: `user` and `admin` of one organisation, `peer` another user of it, `stranger` an admin elsewhere."""

    # The attribute with the key, whose it is, and of which role and organisation.
    KEYS = (
        ("user", "u", Role.USER, "default"),
        ("admin", "boss", Role.ADMIN, "default"),
        ("peer", "p", Role.USER, "default"),
        ("stranger", "s", Role.ADMIN, "other"),
    )
    KEY = "user"  # who asks unless somebody is named

    def __init__(self, policy=POLICY, path=":memory:", **options):
        self.time = 1_700_000_000.0
        self.store = Store.open(path, now=lambda: self.time)
        self.authority = Authority(self.store, parse_policy(policy), now=lambda: self.time, **options)
        for attribute, name, role, tenant in self.KEYS:
            setattr(self, attribute, self.store.issue_key(name=name, role=role, tenant=tenant))
        self.headers = {}
        self.content = b""

    def later(self, seconds):
        """Let time pass, also by the clock of a PostgreSQL server."""
        self.time += seconds
        if self.store.engine.fleet is not None:
            behind(self.store, f"UPDATE allowances SET at = at - {seconds}")

    def call(self, method, path, body=None, *, key=..., query="", raw=None, client="", **headers):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        key = self.KEY if key is ... else key
        if key:
            given["x-api-key"] = getattr(self, key, key)
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        status, self.headers, answer = self.authority.handle(method, path, query, given, content, client=client)
        self.content = answer
        return status, json.loads(answer)

    def get(self, path, query="", **options):
        return self.call("GET", path, query=query, **options)

    def post(self, path, body=None, **options):
        return self.call("POST", path, body, **options)

    def submit(self, action_type="data_access", *, agent_id="a", amount=None, key="user", **fields):
        details = {} if amount is None else {"action_details": {"amount": amount}}
        body = {"agent_id": agent_id, "action_type": action_type, "resource": "r", **details, **fields}
        return self.call("POST", "/api/v1/actions/submit", body, key=key)

    def audit(self):
        """Return every audit entry as (event, data)."""
        entries = [json.loads(row["entry"]) for row in self.store.rows("SELECT entry FROM audit ORDER BY seq")]
        return [(entry["event"], entry["data"]) for entry in entries]

    def events(self):
        return [event for event, _ in self.audit()]

    def code(self, answer):
        """Return status and error code."""
        status, body = answer
        return status, body["error"]["code"]


def local_authority(folder, decision="approved"):
    """Write a policy that decides all alike; return the URL of its embedded authority."""
    file = folder / "policy.toml"
    file.write_text(f'[[policy]]\nname = "all"\naction_types = ["*"]\ndecision = "{decision}"\n')
    return f"local:{file}"
