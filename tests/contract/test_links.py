"""A link to a real Redis: what it speaks, and in which order what it sends is done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from shared import keys
from shared.connections import connect_link
from shared.scripts import script
from shared.settings import get_settings
from web.admission import Place
from web.delivery import Delivery

USER = "local"


@pytest.mark.parametrize("options", ["", "?protocol=2", "?protocol=3", "?decode_responses=true"])
def test_a_link_speaks_resp3_whatever_the_url_says(redis_url: str, options: str) -> None:
    async def greet() -> Any:
        connection = await connect_link(redis_url + options)
        try:
            await connection.send_command("HELLO")
            return await connection.read_response(disable_decoding=True)
        finally:
            await connection.disconnect()

    assert asyncio.run(greet())[b"proto"] == 3


def test_a_place_given_back_stays_given_back_where_redis_has_lost_the_steps(
    client: redis.Redis,
) -> None:
    async def check() -> None:
        delivery = Delivery(get_settings())
        place = Place(delivery.hub, delivery.settings, USER, "{}", delivery.watchers)
        link = place.link
        async with asyncio.timeout(30):
            await place.take(None, lambda _: None)
            place.renew("0-0", lags=False, observe=lambda _: None, is_over=lambda: None)
            await link.run(script("list_connections"), connections(), [], list)
            assert client.zcard(keys.connections(USER)) == 1
            client.script_flush()
            client.client_kill_filter(_type="normal", skipme=True)
            await link._lost.wait()
            await link.up.wait()
            place.renew("0-0", lags=False, observe=lambda _: None, is_over=lambda: None)
            place.give_back()
            await delivery.aclose()  # once all is answered

    asyncio.run(check())
    assert client.zcard(keys.connections(USER)) == 0
    assert client.hlen(keys.connection_details(USER)) == 0


def connections() -> list[str]:
    return [keys.connections(USER), keys.connection_details(USER)]
