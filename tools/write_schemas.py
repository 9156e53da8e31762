"""Write the JSON Schemas of `ascend.toml` and `policy.toml` anew, from their readers: python tools/write_schemas.py."""

import json
from pathlib import Path

import ascend_middleware
from ascend_middleware.authority.policy.policy_schema import policy_schema
from ascend_middleware.rules.table_schema import table_schema

FOLDER = Path(ascend_middleware.__file__).parent / "schemas"


def texts():
    """Return each file's name with what it has to hold."""
    schemas = {"ascend": table_schema(), "policy": policy_schema()}
    return {
        f"{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)
