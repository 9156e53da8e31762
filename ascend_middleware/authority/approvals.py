"""What people decide: about pending actions, and, on the command line alone, who approves and what models are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ascend_middleware.api.bodies import MAX_TEXT
from ascend_middleware.exceptions import ConflictError, NotFoundError, ValidationError

from .bodies import ApiError
from .context import AuthorityContext
from .keys import LOCAL, Credential, Role, operator, person
from .policy import pattern_issues
from .policy.approvers import ApprovalRules, Requirement, requirement
from .store.archiver import nobody_of, unknown_organisations
from .store.engine import stored_json
from .store.registry_store import APPROVERS, MCP_SERVER, MODEL, POLICY, SMART_RULE, Records
from .store.store import Store

__all__ = [
    "STATUSES",
    "Management",
    "approval_rules",
    "conclude",
    "decide",
    "is_own",
    "same_person",
    "unknown_approvers",
    "use",
    "what_cannot_be",
]

log = logging.getLogger(__name__)

STATUSES: Final = ("approved", "partially_approved", "pending", "denied")
_MOST_APPROVERS: Final = 20


def decide(
    store: Store,
    row: Mapping[str, Any],
    body: Mapping[str, Any],
    *,
    approved: bool,
    by: Credential,
    via: str = "api",
) -> dict[str, Any]:
    """Record a person's decision about a pending action and return the action. Every door decides through this.

    One denial denies. An action that needs several approvers stays pending until so many different people approved.
    Who may not decide is refused (403) with an audit entry. `via` is the door: api, page or command line.
    """
    comments = next((body[name] for name in ("comments", "reason") if body.get(name) is not None), "")
    if not isinstance(comments, str) or len(comments) > MAX_TEXT:
        message = f"comments must be a text of at most {MAX_TEXT} characters"
        raise ApiError(422, "VALIDATION_ERROR", message, details={"field": "comments"})
    refusal = _refusal(row, by)
    if refusal is not None:
        data = {"code": refusal[0], "key": by.key_id, "approved": approved, "via": via}
        store.audit("DECISION_REFUSED", tenant=by.tenant, actor=by.name, action_id=row["id"], data=data)
        raise ApiError(403, *refusal)
    with store.write():
        row = store.action(row["id"], tenant=by.tenant)  # as it stands now, under the lock
        if row["status"] != "pending":
            raise _not_pending(row)
        if approved:
            _check_log(store, row["id"])
        given = row["approvals"]
        if approved and any(same_person(by, one["by"], one["key"]) for one in given):
            message = f"{by.name} has approved action {row['id']} before; it waits for somebody else"
            raise ApiError(409, "ALREADY_APPROVED", message, details={"status": "pending"})
        needed = requirement(row)
        if approved and len(given) + 1 < needed.count:
            return store.add_approval(row, by=by, comments=comments, via=via)
        word, event = ("approved", "ACTION_APPROVED") if approved else ("denied", "ACTION_DENIED")
        data = {"by": by.name, "key": by.key_id if by.key_id > 0 else None, "comments": comments, "via": via}
        if given:
            data["approvals"] = given
        store.settle(row["id"], word, tenant=by.tenant, event=event, actor=by.name, data=data)
        return store.action(row["id"], tenant=by.tenant)


def _check_log(store: Store, number: int) -> None:
    """Refuse to approve what the audit log does not tell like that: a row that somebody forged counts for nobody."""
    found = store.unlike_log(number)
    if found:
        log.error("action %s cannot be approved, it is not what the audit log says: %s", number, found[0].message)
        message = f"action {number} is not what the audit log says; nothing was decided, see `audit verify`"
        raise ApiError(500, "NOT_AS_LOGGED", message)


def _refusal(row: Mapping[str, Any], by: Credential) -> tuple[str, str] | None:
    """Say why somebody may not decide about an action, as a code and a sentence."""
    if not by.role.decides:
        return "ADMIN_REQUIRED", "only an admin's or an approver's key may decide about a pending action"
    if is_own(row, by):
        return "SELF_APPROVAL", "whoever submitted an action must not decide about it"
    needed = requirement(row)
    if not needed.admits(by.name):
        return "NOT_AN_APPROVER", f"actions of this risk are decided by {', '.join(needed.names)}"
    return None


def is_own(row: Mapping[str, Any], by: Credential) -> bool:
    """Say whether it was the same person who submitted an action, by whatever key or token."""
    return same_person(by, row["submitter"], row["submitted_by"])


def same_person(by: Credential, name: str, key_id: int | None) -> bool:
    """Say whether a credential is that of the person of a name: a second key, or a token, makes nobody a second one.

    `local:` is no person; another who is called so may be one.
    """
    return by.key_id == key_id or (key_id != LOCAL.key_id and person(by.name) == person(name))


def _not_pending(row: Mapping[str, Any]) -> ApiError:
    message = f"action {row['id']} is not pending, it is {row['status']}"
    return ApiError(409, "NOT_PENDING", message, details={"status": row["status"]})


def conclude(
    store: Store,
    row: Mapping[str, Any],
    body: Mapping[str, Any],
    *,
    word: str,
    at: str,
    by: Credential,
) -> None:
    """Record that an approved action was completed or has failed; the same report twice counts once.

    One that failed because it did not happen, and whose approval was given back, is in the audit log and ends later.
    """
    known = row["outcome"]
    if known is not None:
        if known["status"] == word:
            return
        message = f"action {row['id']} has been reported {known['status']} before"
        raise ApiError(409, "OUTCOME_CONFLICT", message, details={"outcome": known["status"]})
    # What was never approved must not have run; the report is refused, and remembered.
    if row["status"] != "approved":
        data = {"status": row["status"], "outcome": word, "key": by.key_id}
        store.audit("OUTCOME_REFUSED", tenant=by.tenant, actor=by.name, action_id=row["id"], data=data)
        message = f"action {row['id']} is not approved, it is {row['status']}"
        raise ApiError(409, "NOT_APPROVED", message, details={"status": row["status"]})
    given_back = body.get("given_back")
    if word == "failed" and given_back is not None:
        # It did not happen, so nothing is known yet of what becomes of it.
        data = {name: body[name] for name in ("error", "given_back", "duration_ms") if body.get(name) is not None}
        store.audit("APPROVAL_GIVEN_BACK", tenant=by.tenant, actor=by.name, action_id=row["id"], data=data)
        return
    kept = ("result" if word == "completed" else "error", "duration_ms", f"{word}_at")
    outcome = {"status": word, "at": at, **{name: body[name] for name in kept if body.get(name) is not None}}
    store.conclude(row["id"], outcome, tenant=by.tenant, actor=by.name)


def use(store: Store, row: Mapping[str, Any], told: Mapping[str, Any], *, by: Credential) -> None:
    """Record that the decision about an action let a further, identical request of its agent pass.

    Only what was approved without a person may be used so. A use of anything else is refused, and remembered.
    """
    if row["status"] != "approved" or row["approval"]:
        data = {"status": row["status"], "outcome": "used", "use": told["use"], "key": by.key_id}
        store.audit("OUTCOME_REFUSED", tenant=by.tenant, actor=by.name, action_id=row["id"], data=data)
        why = "was approved by a person, for one run" if row["status"] == "approved" else f"is {row['status']}"
        raise ApiError(409, "NOT_REUSABLE", f"action {row['id']} {why}", details={"status": row["status"]})
    store.audit("ACTION_USED", tenant=by.tenant, actor=by.name, action_id=row["id"], data={**told, "key": by.key_id})


# --- who approves


def approval_rules(records: Records, declared: ApprovalRules, *, tenant: str) -> ApprovalRules:
    """Return who approves in an organisation: what the command line set for a level goes before the policy file."""

    def load() -> dict[str, Requirement]:
        rows = records.all(APPROVERS, tenant=tenant)
        return {row["name"]: Requirement(count=row["count"], names=tuple(row["approvers"])) for row in rows}

    kept = records.cached(("approvers", tenant), load)
    return replace(declared, levels={**declared.levels, **kept}) if kept else declared


def unknown_approvers(
    store: Store, levels: Mapping[str, Requirement], *, tenant: str | None = None, issuer: str = ""
) -> list[str]:
    """Return in words which approvers no key can be, and where too few people are left to approve.

    Without a tenant it is about all, where the best provided one counts. Who has a token of `issuer` may be somebody as
    well, and cannot be known here.
    """
    people: dict[str, set[str]] = {} if tenant is None else {tenant: set()}
    for key in store.list_keys():
        if key["state"] == "valid" and Role(key["role"]).decides and tenant in (None, key["tenant"]):
            people.setdefault(key["tenant"], set()).add(person(key["name"]))
    # The command line decides for every organisation.
    groups = [group | {person(operator().name)} for group in people.values() or [set()]]
    anybody = set().union(*groups)
    told = []
    for level, needed in levels.items():
        unknown = [name for name in needed.names if person(name) not in anybody]
        named = {person(name) for name in needed.names}
        most = max(len(group & named if named else group) for group in groups)
        words = []
        if unknown:
            words.append(f"no admin key has the name {', '.join(map(repr, unknown))}")
        if most < needed.count:
            words.append(f"{needed.count} people must approve, and there are admin keys of {most}")
        if words:
            end = f"; only who has a token of {issuer} can be" if issuer else ""
            told.append(f"approvers of {level} risk: {'; '.join(words)}{end}")
    return told


def what_cannot_be(authority: AuthorityContext) -> list[str]:
    """Return in words what stands in the policy file or the database and can never come true.

    What the policy file alone shows is refused when it is read. Here is what only the database tells.
    """
    policy, store = authority.policy, authority.store
    issuer = policy.token_key.issuer if policy.token_key else ""
    told = unknown_approvers(store, policy.approvals.levels, issuer=issuer)
    for row in store.rows("SELECT DISTINCT tenant FROM records WHERE kind = ?", (APPROVERS,)):
        kept = approval_rules(store, ApprovalRules(), tenant=row["tenant"]).levels
        words = unknown_approvers(store, kept, tenant=row["tenant"], issuer=issuer)
        told += [f"organisation {row['tenant']}: {one}" for one in words]
    keys = store.list_keys()
    known = {name for key in keys for name in (key["name"], f"#{key['id']}")}
    told += [f"key_limit: there is no key {name!r}" for name in policy.key_limits if name not in known and not issuer]
    told += [nobody_of(name) for name in unknown_organisations(store, policy.retention.legal_hold)]
    for row in store.rows(
        "SELECT kind, name, tenant, fields FROM records WHERE kind IN (?, ?, ?) ORDER BY id",
        (POLICY, SMART_RULE, MCP_SERVER),
    ):
        fields = stored_json(row["fields"], f"fields of {row['kind']} {row['name']}")
        where = f"organisation {row['tenant']}, {row['kind']} {row['name']!r}"
        issues = pattern_issues(fields, "action_types", "agents", "blocked_tools", "tool_risk_overrides")
        told += [f"{where}: {key}: {message}; {hint}" for key, message, hint in issues]
    return told


# --- the command line


@dataclass(frozen=True, slots=True, kw_only=True)
class Management:
    """Changes one organisation's registrations in the name of `by`, each with its audit entry."""

    store: Store
    by: Credential

    def audit(self, event: str, **data: Any) -> None:
        """Append an audit entry."""
        self.store.audit(event, tenant=self.by.tenant, actor=self.by.name, data={**data, "via": "command line"})

    def models(self) -> list[dict[str, Any]]:
        """Return the models of the database."""
        return self.store.all(MODEL, tenant=self.by.tenant)

    def add_model(self, number: int, *, name: str, status: str) -> dict[str, Any]:
        """Register a model; raise `ConflictError` if its number or name is taken in the database."""
        if not 1 <= number <= 2**53:
            raise ValidationError("a model's number is 1 or more", field="id")
        if name.isdigit():
            raise ValidationError("a model's name must not be a number: actions name models by either", field="name")
        if any(name and row["model_name"] == name for row in self.models()):
            raise ConflictError(f"there is a model of the name {name!r} already")
        fields = {"model_name": name, "compliance_status": status}
        with self.store.write():
            record = self.store.add(MODEL, str(number), fields, tenant=self.by.tenant, key_id=self.by.key_id)
            self.audit("MODEL_REGISTERED", model_id=number, name=name, compliance_status=status)
        return record

    def set_model_status(self, number: int, status: str) -> dict[str, Any]:
        """Change a model's compliance status; raise `NotFoundError` if the database has none of the number."""
        with self.store.write():
            record = self._get(MODEL, str(number), f"there is no model {number} in the database")
            record = self.store.update(record, {"compliance_status": status}, tenant=self.by.tenant)
            self.audit("MODEL_STATUS_CHANGED", model_id=number, compliance_status=status)
        return record

    def remove_model(self, number: int) -> None:
        """Remove a model; raise `NotFoundError` if the database has none of the number."""
        with self.store.write():
            record = self._get(MODEL, str(number), f"there is no model {number} in the database")
            self.store.remove(record, tenant=self.by.tenant)
            self.audit("MODEL_REMOVED", model_id=number)

    def approvers(self) -> dict[str, Requirement]:
        """Return who approves at the levels that the command line set."""
        return dict(approval_rules(self.store, ApprovalRules(), tenant=self.by.tenant).levels)

    def set_approvers(self, level: str, *, count: int, names: Sequence[str]) -> None:
        """Say how many people, and who, must approve at a risk level; it holds for actions submitted from then on."""
        if len({person(name) for name in names}) != len(names) or not all(person(name) for name in names):
            raise ValidationError("approvers are different names of admin keys", field="approvers")
        if not 1 <= count <= _MOST_APPROVERS or (names and count > len(names)):
            message = f"count must be 1 to {_MOST_APPROVERS}, and not more than there are names"
            raise ValidationError(message, field="count")
        fields = {"count": count, "approvers": list(names)}
        with self.store.write():
            try:
                record = self.store.get(APPROVERS, level, tenant=self.by.tenant)
                self.store.update(record, fields, tenant=self.by.tenant)
            except NotFoundError:
                self.store.add(APPROVERS, level, fields, tenant=self.by.tenant, key_id=self.by.key_id)
            self.audit("APPROVERS_SET", level=level, **fields)

    def clear_approvers(self, level: str) -> None:
        """Let the policy file say again who approves at a level."""
        with self.store.write():
            record = self._get(APPROVERS, level, f"the command line has set no approvers for {level}")
            self.store.remove(record, tenant=self.by.tenant)
            self.audit("APPROVERS_CLEARED", level=level)

    def _get(self, kind: str, name: str, message: str) -> dict[str, Any]:
        try:
            return self.store.get(kind, name, tenant=self.by.tenant)
        except NotFoundError:
            raise NotFoundError(message) from None
