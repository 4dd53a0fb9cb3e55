"""A headless Firefox without a network, driven by its own protocol, Marionette."""

import json
import socket
import subprocess
import time
from contextlib import contextmanager

PROGRAM = "firefox-esr"
PATIENCE = 600_000  # milliseconds


@contextmanager
def driven(profile):
    """``visit(address, expression)``: what a promise comes to on a page."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "marionette.port": port,
        "network.proxy.type": 1,  # a proxy that is not there
        "network.proxy.socks": "127.0.0.1",
        "network.proxy.socks_port": 9,
    }
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(settings[name])});\n" for name in settings]
    (profile / "user.js").write_text("".join(lines), encoding="utf-8")
    command = [PROGRAM, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)
    try:
        with connected(port, process) as link, link.makefile("rwb", buffering=0) as stream:
            yield visitor(stream)
    finally:
        process.kill()
        process.wait()


def connected(port, process):
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            assert process.poll() is None, "Firefox has ended"
            time.sleep(0.1)


def visitor(stream):
    """Each message is its length, a colon and JSON; Firefox greets first."""

    def hear():
        size = b""
        while not size.endswith(b":"):
            size += stream.read(1)
        rest = b""
        while len(rest) < int(size[:-1]):
            rest += stream.read(int(size[:-1]) - len(rest))
        return json.loads(rest)

    def tell(name, **given):
        message = json.dumps([0, 1, name, given]).encode()
        stream.write(b"%d:%s" % (len(message), message))
        _, _, error, result = hear()
        assert not error, error
        return result

    def visit(address, expression):
        tell("WebDriver:Navigate", url=address)
        script = f"const done = arguments[0]; ({expression}).then(done, (e) => done(String(e)));"
        given = {"script": script, "args": [], "scriptTimeout": PATIENCE, "sandbox": None}
        return tell("WebDriver:ExecuteAsyncScript", **given)["value"]

    hear()
    tell("WebDriver:NewSession", timeouts={"script": PATIENCE, "pageLoad": PATIENCE})
    return visit
