"""In-process signals (blinker) for applications that want to react where something happens."""

from __future__ import annotations

from blinker import Namespace

_namespace = Namespace()

# Sent by the process whose fact ended a run. sender: the RunRef; kwargs: status (str), one of
# completed, failed, cancelled. A receiver's exception is logged and goes no further.
run_ended = _namespace.signal("run-ended")
