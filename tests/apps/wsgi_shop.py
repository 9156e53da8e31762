"""A Flask application with the WSGI middleware around it, which knows paths only."""

from flask import Flask

from ascend_middleware.wsgi import AscendMiddleware

app = Flask(__name__, static_folder=None)
app.add_url_rule("/items/<int:number>", "item", lambda number: "")
app.add_url_rule("/named", "named", lambda: "")

application = AscendMiddleware(
    app,
    rules={
        "rule": [{"match": "GET /items/{number}", "action_type": "item"}, {"endpoint": "named", "action_type": "x"}]
    },
    agent_id="shop",
    api_url="https://authority.example",
    api_key="owkai_test_0123456789abcdef",
    state="memory:",
    journal="off",
    kill_switch="off",
)
