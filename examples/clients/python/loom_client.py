"""Loom from Python, with nothing but nats-py: submit a job, watch it, signal it, stop it.

    python3 -m venv .venv
    .venv/bin/pip install --require-hashes -r requirements.txt
    LOOM_BUS=nats://127.0.0.1:4222 .venv/bin/python loom_client.py

A bus with TLS and credentials: LOOM_TLS_CA names its authority, LOOM_CREDS a credentials file.
"""

import asyncio
import json
import os
import ssl

import nats

JOB = {
    "name": f"python-{os.getpid()}",
    "bash": "trap 'echo got the signal' USR1; echo ready; while true; do sleep 0.1; done",
}
PATIENCE = 30


class Refused(Exception):
    """Loom said no: `code` says why in a word, `str()` in a sentence."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


async def connect():
    options = {"name": "python example"}
    if ca := os.environ.get("LOOM_TLS_CA"):
        options["tls"] = ssl.create_default_context(cafile=ca)
    if creds := os.environ.get("LOOM_CREDS"):
        options["user_credentials"] = creds
    servers = os.environ.get("LOOM_BUS", "nats://127.0.0.1:4222").split(",")
    return await nats.connect(servers, **options)


async def ask(bus, subject, payload=b""):
    """One request and its answer; JSON both ways, or one bare word where that is enough."""
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    answer = await bus.request(subject, payload, timeout=PATIENCE)
    body = json.loads(answer.data)
    if answer.headers and "Nats-Service-Error-Code" in answer.headers:
        raise Refused(body["code"], body["message"])
    return body


async def command(bus, subject, word=b""):
    """A command to one task: its row, unless the task could not do it."""
    [row] = (await ask(bus, subject, word))["rows"]
    if error := row.get("error"):
        raise Refused(error["code"], error["message"])
    return row


async def until(messages, is_it):
    """Reads messages until one is the one waited for, and prints their subjects."""
    while True:
        message = await messages.next_msg(timeout=PATIENCE)
        print(f"  {message.subject}")
        if is_it(message):
            return message


async def main():
    bus = await connect()
    job = JOB["name"]
    # First listen, then do: nothing can be missed in between.
    events = await bus.subscribe("orch.events.>")
    output = await bus.subscribe(f"orch.logs.{job}.>")

    accepted = await ask(bus, "orch.job.submit", JOB)
    print(f"submitted {job}: {accepted['outcome']}, version {accepted['version']}")
    running = f"orch.events.task.{job}.main.0.running"
    await until(events, lambda m: m.subject == running)
    # It runs, but only the task itself knows when it is ready to be signalled.
    await until(output, lambda m: b"ready" in m.data)

    # Straight to the task: no manager is on the way. The answer has a row for each task.
    task = f"orch.task.{job}.main.0"
    row = await command(bus, f"{task}.inspect")
    print(f"inspect: run {row['run']} on {row['node']}, pid {row['value']['pid']}")
    row = await command(bus, f"{task}.signal", b"USR1")
    print(f"signal: sent to {job}/{row['slot']['index']} on {row['node']}")
    line = await until(output, lambda m: b"got the signal" in m.data)
    print(f"output: {line.data.decode().strip()}")
    for verb in ("pause", "resume"):
        row = await command(bus, f"{task}.{verb}")
        print(f"{verb}: done in {row['took_us']} us")

    try:
        await ask(bus, "orch.job.submit", {"name": job, "bahs": "true"})
    except Refused as no:
        print(f"refused as {no.code}: {no}")

    await ask(bus, "orch.job.stop", {"address": {"job": job}, "reason": "it is over"})
    killed = f"orch.events.job.{job}.killed"
    event = await until(events, lambda m: m.subject == killed)
    print(f"stopped: {json.loads(event.data).get('reason')}")
    await bus.close()


if __name__ == "__main__":
    asyncio.run(main())
