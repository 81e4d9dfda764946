"""A counter that survives anything: the smallest agent of one's own.

troupe up
python examples/durable_counter.py
"""

from __future__ import annotations

from runtime import AgentState, BaseAgent, Message


class Counter(BaseAgent):
    kind = "counter"

    class State(AgentState):
        total: int = 0

    async def receive_message(self, message: Message) -> int:
        self.state.total += message.content["by"]
        return self.state.total


def main() -> None:
    import durable_counter
    import ray

    from runtime import connect

    troupe = connect()
    troupe.host(durable_counter.Counter)
    print(ray.get(troupe.ask("counter:example", "increment", {"by": 2})))


if __name__ == "__main__":
    main()
