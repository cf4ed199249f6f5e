"""The peer: Nchan, a publish-subscribe module of nginx, in C. In Debian: nginx, libnginx-mod-nchan.

With its memory store it keeps messages itself; with its Redis store several servers can share them,
which is what compares to this project. One worker, as there is one process of ours.
"""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.eventstream import STOP_SECONDS, durable_redis
from benchmarks.machine import cores, on_core
from benchmarks.systems import Channel, Running, System, body, http_get
from worker.cli.children import ChildFailed, spawn, stop
from worker.cli.embedded import LOOPBACK, free_port

MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
MODULE = "ngx_nchan_module.so"
START_SECONDS = 10.0
KEPT_MESSAGES = 1000  # for each channel, as many as a user stream keeps
SOCKETS = 16  # of the publisher: on each, nginx takes one request after the other

CONFIGURATION = """\
load_module {module};
daemon off;
user {account};
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {descriptors}; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_shared_memory_size 1024M;
    {upstream}
    server {{
        listen {address}:{port} backlog=4096;
        location ~ ^/publish/(.+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length {kept};
            {store}
        }}
        location ~ ^/events/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
            nchan_message_buffer_length {kept};
            {store}
        }}
    }}
}}
"""


def missing() -> str | None:
    """What there is not, as a sentence; None where Nchan can be started."""
    if shutil.which("nginx") is None:
        return "Nchan is left out: there is no nginx (apt-get install nginx libnginx-mod-nchan)."
    if _module() is None:
        return "Nchan is left out: nginx lacks its module (apt-get install libnginx-mod-nchan)."
    return None


def systems(descriptors: int) -> list[System]:
    """Nchan with each of its stores."""
    memory = partial(_running, descriptors=descriptors, in_redis=False)
    redis = partial(_running, descriptors=descriptors, in_redis=True)
    return [
        System("nchan-memory", "Nchan memory", memory),
        System("nchan-redis", "Nchan Redis", redis),
    ]


def _module() -> Path | None:
    found = (Path(folder, MODULE) for folder in MODULES)
    return next((path for path in found if path.exists()), None)


@contextmanager
def _running(*, descriptors: int, in_redis: bool) -> Iterator[Running]:
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="nchan-benchmark-")))
        upstream = store = ""
        if in_redis:
            url = held.enter_context(durable_redis(folder)).url
            upstream = f"upstream kept {{ nchan_redis_server {url.removesuffix('/0')}; }}"
            store = "nchan_redis_pass kept;"
        port = free_port()
        configuration = folder / "nginx.conf"
        text = CONFIGURATION.format(
            module=_module(),
            account=pwd.getpwuid(os.getuid()).pw_name,
            descriptors=descriptors,
            folder=folder,
            address=LOOPBACK,
            port=port,
            kept=KEPT_MESSAGES,
            upstream=upstream,
            store=store,
        )
        configuration.write_text(text)
        nginx = shutil.which("nginx")
        assert nginx is not None
        with on_core(cores()[0]):
            child = spawn("nginx", [nginx, "-p", folder, "-c", configuration])
        held.callback(stop, [child], STOP_SECONDS)
        deadline = time.monotonic() + START_SECONDS
        while not _takes_events(port):
            if not child.running or time.monotonic() > deadline:
                raise ChildFailed(child.ended() if not child.running else child.last_lines())
            time.sleep(0.05)
        yield Running(
            folder=folder,
            port=port,
            pid=child.pid,
            channel=Channel(port, "http", SOCKETS),
            get=partial(_get, port),
            event=_event,
            cursors=_cursors,
            quickack=True,
        )


def _get(port: int, user: str, cursor: str | None) -> bytes:
    return http_get(f"/events/{user}", port, **({"Last_Event_ID": cursor} if cursor else {}))


def _event(user: str) -> bytes:
    text = body(user)
    head = f"POST /publish/{user} HTTP/1.1\r\nHost: {LOOPBACK}\r\nContent-Length: {len(text)}"
    return f"{head}\r\n\r\n{text}".encode()


def _takes_events(port: int) -> bool:
    try:
        return _post(port, "nobody") is not None
    except OSError:
        return False


def _post(port: int, user: str) -> str | None:
    """Publishes one event; returns its id, None where it was not taken (yet)."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("POST", f"/publish/{user}", body(user))
        response = connection.getresponse()
        said = response.read().decode()
    finally:
        connection.close()
    return said.rpartition("last message id: ")[2].strip() if response.status // 100 == 2 else None


def _cursors(running: Running, users: Sequence[str], back: int) -> list[str]:
    found = [_post(running.port, user) for user in users]
    running.publish(users, count=len(users) * back)
    return [cursor for cursor in found if cursor is not None]
