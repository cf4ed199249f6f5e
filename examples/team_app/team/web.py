"""The shop's own web application. It mounts nothing: browsers get events from the web process."""

import os

from celery import chord
from flask import Flask, request

from team import celery  # noqa: F401  (makes the application the default one)
from team.tasks import check_rows, store_prices
from worker.pipeline import RunInProgress, cancel, start_ingest

BATCH = 100
EVENTS_URL = os.environ.get("EVENTS_URL", "http://localhost:8000")

app = Flask(__name__)


def signed_in_user() -> str:
    """Whoever the shop's own session says; `local` is everyone while there is no sign-in."""
    return "local"


@app.post("/price-lists/<list_id>")
def import_prices(list_id: str):
    """Takes a price list, a row a line, and has it checked and stored."""
    user = signed_in_user()
    rows = request.get_data(as_text=True).splitlines()
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    if not batches:
        return {"message": "The price list is empty."}, 400
    canvas = chord(
        [check_rows.si(user, list_id, batch) for batch in batches],
        store_prices.s(user_id=user, list_id=list_id),
    )
    try:
        started = start_ingest(
            canvas,
            user_id=user,
            source_id=list_id,
            name=f"Price list {list_id}",
            unit="batches",
            exclusive=True,
        )
    except RunInProgress as error:
        return {"message": str(error)}, 409
    watch = f"{EVENTS_URL}/api/events?last_event_id={started.cursor}"
    return {"run_id": started.run_id, "watch": watch}, 202


@app.delete("/imports/<run_id>")
def stop_import(run_id: str):
    """Cancels an import."""
    return {"cancelled": cancel(run_id)}


@app.get("/")
def index() -> str:
    """A page that watches: the browser's own EventSource is enough."""
    return PAGE.replace("EVENTS_URL", EVENTS_URL)


PAGE = """<!doctype html>
<title>Price lists</title>
<h1>Price lists</h1>
<ul id="runs"></ul>
<script>
  const items = {};
  new EventSource("EVENTS_URL/api/events").onmessage = ({ data }) => {
    const { type, payload } = JSON.parse(data);
    if (!type.startsWith("source.ingest.")) return;
    const item = (items[payload.run_id] ??= document.createElement("li"));
    document.getElementById("runs").append(item);
    const error = payload.error?.message ?? "";
    item.textContent = `${payload.name}: ${type.slice(14)} ${payload.percent} % ${error}`;
  };
</script>
"""
