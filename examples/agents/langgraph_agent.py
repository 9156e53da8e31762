"""A LangGraph agent: a request that a person has to approve interrupts the graph, which goes on from its checkpoint.

pip install ascend-middleware langgraph langgraph-checkpoint-sqlite
python langgraph_agent.py http://127.0.0.1:8000 7 5000    # "on hold", and the program ends with status 75
python langgraph_agent.py http://127.0.0.1:8000 7 5000    # when a person has decided: the same graph goes on
"""

import sys

import httpx2
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from ascend_middleware.agent import ApprovalAuth, ApprovalError, ApprovalPaused, resume


class State(MessagesState):
    token: str  # of the request that waits for a person


def scripted_model(messages):
    """Your chat model, bound to the tool `refund`; here, a script that says what one would."""
    if isinstance(messages[-1], ToolMessage):
        return AIMessage(f"The service says: {messages[-1].content}")
    customer, amount = map(int, messages[-1].content.split())
    call = {"name": "refund", "args": {"customer": customer, "amount": amount}, "id": "call-1"}
    return AIMessage("", tool_calls=[call])


def build(client):
    """Return the graph: model → refund → (wait →) model."""

    def model(state):
        return {"messages": [scripted_model(state["messages"])]}

    def refund(state):
        arguments = state["messages"][-1].tool_calls[0]["args"]
        path = f"/customers/{arguments['customer']}/refunds"
        return outcome(state, lambda: client.post(path, json={"amount": arguments["amount"]}))

    def wait(state):
        interrupt("a person has to approve the refund")  # the process may end here
        return outcome(state, lambda: resume(client, state["token"]))

    def outcome(state, send):
        try:
            text = send().text
        except ApprovalPaused as paused:
            return {"token": paused.token}
        except ApprovalError as error:  # denied, or expired
            text = str(error)
        call = state["messages"][-1].tool_calls[0]
        return {"token": "", "messages": [ToolMessage(text, tool_call_id=call["id"])]}

    graph = StateGraph(State)
    graph.add_node(model)
    graph.add_node(refund)
    graph.add_node(wait)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: "refund" if state["messages"][-1].tool_calls else END)
    for node in ("refund", "wait"):
        graph.add_conditional_edges(node, lambda state: "wait" if state["token"] else "model", ["wait", "model"])
    return graph


def main(url, customer, amount):
    headers = {"Authorization": "Bearer refund-agent"}  # an approval is for the same caller
    thread = {"configurable": {"thread_id": f"refund {amount} to {customer}"}}
    with (
        httpx2.Client(base_url=url, headers=headers, auth=ApprovalAuth(pause=True)) as client,
        SqliteSaver.from_conn_string("checkpoints.db") as checkpoints,
    ):
        graph = build(client).compile(checkpointer=checkpoints)
        begun = graph.get_state(thread).interrupts
        result = graph.invoke(
            Command(resume=True) if begun else {"messages": [HumanMessage(f"{customer} {amount}")]}, thread
        )
    if waiting := result.get("__interrupt__"):
        print("on hold:", waiting[0].value)
        return 75
    print(result["messages"][-1].content)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
