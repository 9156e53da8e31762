"""An agent of the OpenAI Agents SDK: its tool waits where a person has to approve what it does.

pip install ascend-middleware openai-agents
OPENAI_API_KEY=… python openai_agent.py http://127.0.0.1:8000 "refund 5000 to customer 7"
"""

import asyncio
import sys

import httpx2
from agents import Agent, Runner, function_tool, set_default_openai_api

from ascend_middleware.agent import ApprovalAuth, ApprovalError


async def main(url, task):
    set_default_openai_api("chat_completions")
    headers = {"Authorization": "Bearer refund-agent"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, auth=ApprovalAuth(timeout=600)) as client:

        @function_tool
        async def refund(customer_id: int, amount: int) -> str:
            """Refund an amount to a customer; a person may have to approve it first."""
            try:
                answer = await client.post(f"/customers/{customer_id}/refunds", json={"amount": amount})
            except ApprovalError as error:  # denied, expired, or nobody decided in ten minutes: the model should know
                return f"not refunded: {error}"
            return answer.text

        agent = Agent("Refunds", instructions="You refund what customers are owed, once.", tools=[refund])
        result = await Runner.run(agent, task)
    print(result.final_output)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
