"""Controllers that poll: `python -m tests.reliability.controller_clients opcua|modbus PORT N`.

Each reads a whole answer `POLLS` times a second. Prints how many answers came when stdin is closed.
"""

import asyncio
import os
import sys

POLLS = 10
NODES = ("Sequence", "Verdict", "VerdictCode", "PartId", "Score", "Reason")


async def _opcua(port: int, counts: list[int]) -> None:
    from asyncua import Client

    async with Client(f"opc.tcp://127.0.0.1:{port}/") as client:
        index = await client.get_namespace_index("urn:cflow-edge:controller")
        nodes = [client.get_node(f"ns={index};s=VisionSystem.Source1.{name}") for name in NODES]
        while True:
            await client.read_values(nodes)
            counts[0] += 1
            await asyncio.sleep(1 / POLLS)


async def _modbus(port: int, counts: list[int]) -> None:
    from pymodbus.client import AsyncModbusTcpClient

    async with AsyncModbusTcpClient("127.0.0.1", port=port) as client:
        while True:
            answer = await client.read_input_registers(100, count=36)
            counts[0] += not answer.isError()
            await asyncio.sleep(1 / POLLS)


async def _run(kind: str, port: int, number: int) -> None:
    counts = [0]
    one = {"opcua": _opcua, "modbus": _modbus}[kind]
    tasks = [asyncio.create_task(one(port, counts)) for _ in range(number)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    ended = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(f"{counts[0]} answers, {len(ended)} of {number} clients ended")


if __name__ == "__main__":
    os.nice(19)  # who polls from another machine takes nothing from this one's processors
    asyncio.run(_run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
