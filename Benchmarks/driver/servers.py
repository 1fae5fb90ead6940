# SPDX-License-Identifier: Apache-2.0
"""Servers under load: started, asked a fixed number of times, and ended."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time

PATIENCE = 60  # seconds until a server answers, many times what it takes under callgrind


def free_port():
    """Below those that the kernel gives to clients: any of them might get it before the server does."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


def end_group(child):
    """Ends what was started in a session of its own, and what that has started: the meter alone is no server."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


class ServerFailure(Exception):
    """A server that does not serve."""


class Server:
    """A server that runs under the meter."""

    def __init__(self, workshop, before):
        self.workshop = workshop
        self.figures = workshop.path(f"{self.name}-took-{os.getpid()}")
        self.port = free_port()
        self.directory = workshop.path(f"{self.name}-{self.port}")
        os.mkdir(self.directory)
        self.process = subprocess.Popen(
            [workshop.meter, self.figures, *before, *self.command()], cwd=self.directory,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def wait_until_it_answers(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise ServerFailure(f"does not answer at port {self.port}")

    def client(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.directory)
        if done.returncode != 0:
            raise ServerFailure(f"fails '{command[0]}': {done.stderr[-100:]}")


class Redis(Server):
    """Six commands, sixteen at a time."""

    name = "redis"

    def command(self):
        # What it does by the clock, ten times a second, would be counted among the instructions of its answers.
        return [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--hz", "1"]

    def load(self, requests):
        self.client(
            "redis-benchmark", "-p", str(self.port), "-q", "-P", "16", "-c", "20", "-r", "10000", "-n", str(requests),
            "-t", "set,get,lpush,lpop,sadd,hset")

    def end(self):
        subprocess.run(["redis-cli", "-p", str(self.port), "shutdown", "nosave"], check=False, capture_output=True)
        self.process.wait(PATIENCE)


class Nginx(Server):
    """A page of 1 KiB, over connections that stay."""

    name = "nginx"

    def command(self):
        with open(f"{self.directory}/page", "w", encoding="ascii") as file:
            file.write("x" * 1024)
        bodies = "".join(
            f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(f"{self.directory}/conf", "w", encoding="ascii") as file:
            file.write(
                "daemon off; master_process off; pid pid; error_log errors; events { worker_connections 256; }\n"
                f"http {{ access_log access; keepalive_requests 1000000; {bodies}\n"
                f"server {{ listen 127.0.0.1:{self.port}; root {self.directory}; }} }}\n")
        return ["nginx", "-p", self.directory, "-c", f"{self.directory}/conf", "-e", f"{self.directory}/errors"]

    def load(self, requests):
        self.client("ab", "-q", "-k", "-c", "8", "-n", str(requests), f"http://127.0.0.1:{self.port}/page")

    def end(self):
        with open(f"{self.directory}/pid", encoding="ascii") as file:
            os.kill(int(file.read()), 15)
        self.process.wait(PATIENCE)


SERVERS = {"redis": Redis, "nginx": Nginx}


@contextlib.contextmanager
def started(workshop, name, before):
    """A server that answers, ended when the context is left."""
    server = SERVERS[name](workshop, before)
    try:
        server.wait_until_it_answers()
        yield server
        server.end()
    finally:
        end_group(server.process)
