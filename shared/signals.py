"""Signals for whoever wants to know, within the process where something happens (blinker)."""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

# Sent once a pruning is over, with `pruned`: a `shared.message_pruning.Pruned`.
messages_pruned = _signals.signal("messages-pruned")
