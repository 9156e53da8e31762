"""What a table of many rules takes."""

import gc
import tracemalloc

from ascend_middleware.rules import RuleTable


def test_a_rule_takes_less_than_a_kilobyte_with_its_own_source():
    count = 500

    def made():
        rules = [
            {"match": f"GET /service{number}/items/{{item_id}}", "action_type": "data_access", "resource": "items"}
            for number in range(count)
        ]
        return RuleTable.from_mapping({"ascend": {"agent_id": "billing-api"}, "rule": rules})

    made()  # what is made once for all tables
    gc.collect()
    tracemalloc.start()
    try:
        table = made()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert table.lookup("GET", "/service3/items/1") is not None
    assert taken / count < 1024
