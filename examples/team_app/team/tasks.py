"""What the shop does with a supplier's price list: check its rows in batches, then store them."""

import json
import os
from pathlib import Path

from celery import shared_task

from worker.ingest import IngestError, stage, track

# The arguments that hold the user and the source, and the stages of the bar with their weight.
WHO = {"user": "user_id", "source": "list_id"}


class BadRow(IngestError):
    """The price list has a row that is not a name and a price."""

    code = "bad_row"


@shared_task(ingest={**WHO, "stages": {"check": 4}})
def check_rows(user_id: str, list_id: str, rows: list[str]) -> dict[str, float]:
    """Checks one batch of rows, such as `pencil,0.80`."""
    prices = {}
    with stage("check"):
        for row in track(rows, unit="rows"):
            name, _, price = row.partition(",")
            try:
                prices[name] = float(price)
            except ValueError:
                raise BadRow(details={"row": row}) from None
    return prices


@shared_task(ingest={**WHO, "stages": {"store": 1}})
def store_prices(batches: list[dict[str, float]], user_id: str, list_id: str) -> dict[str, int]:
    """Stores what was checked; what it returns is in `source.ingest.completed`."""
    prices = {name: price for batch in batches for name, price in batch.items()}
    with stage("store"):
        folder = Path(os.environ.get("PRICES", "prices"))
        folder.mkdir(exist_ok=True)
        (folder / f"{Path(list_id).name}.json").write_text(json.dumps(prices))
    return {"prices": len(prices)}
