"""A team of agents as one node of a LangGraph application.

python examples/inside_langgraph.py [MODEL]      # mock/echo (default), local/smollm2, openai/...
"""

import asyncio
import sys
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

import agentcomm as ac


class State(TypedDict, total=False):
    ticket: str
    question: str
    answer: str
    usage: dict[str, Any]
    reply: str


async def main(model: str) -> None:
    team = ac.topologies.chain(
        [
            ac.Agent("writer", role="Answer the customer in one sentence."),
            ac.Agent("editor", role="Make the answer you are shown friendlier. Reply with it alone."),
        ]
    )
    app = StateGraph(State)
    app.add_node("read", lambda state: {"question": f"A customer writes: {state['ticket']}"})
    app.add_node("team", ac.to_langgraph(team, model=model, max_tokens=60))
    app.add_node("send", lambda state: {"reply": f"{state['answer']}\n\nYour support team"})
    app.add_edge(START, "read")
    app.add_edge("read", "team")
    app.add_edge("team", "send")
    app.add_edge("send", END)

    ticket = {"ticket": "My order came without the cable."}
    async for _, mode, data in app.compile().astream(
        ticket, stream_mode=["custom", "values"], subgraphs=True
    ):
        if mode == "custom":  # every message, as it comes
            print(f"[{data['agent']}] {data.get('text', data.get('failure'))}")
        elif "reply" in data:
            print(f"\n{data['reply']}\n\nTokens read on each edge: {data['usage']['by_edge']}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "mock/echo"))
