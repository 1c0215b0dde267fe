"""Which thresholds an engine has after it was built again: those chosen with it are not lost, and are said."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from runtime.engines.sidecar import Sidecar, Threshold

Say = Callable[[str], None]


def keep_thresholds(built: Sidecar, standing: Sidecar | None, last: Sidecar | None, say: Say = print) -> Sidecar:
    """Return `built` with the thresholds that were set on the engine that stands, if it is of the same network.

    `last` is what the model said when that engine was built, None if that is not known: of a name that both have, the
    engine's counts where it was changed since, else the model's. Says what is kept and what is dropped.
    """
    links = [] if standing is None else standing.links()
    own: dict[str, Threshold] = {}
    default = built.default_threshold
    for link in (link for link in links if same_network(link, built)):
        own |= {name: t for name, t in _changed(link, last).items() if built.thresholds.get(name) != t}
        default = (
            link.default_threshold if last is None or link.default_threshold != last.default_threshold else default
        )
    thresholds = {**built.thresholds, **own}
    default = default if default in thresholds else built.default_threshold
    others = [link for link in links if not same_network(link, built)]
    dropped = {name for link in others for name in _changed(link, last)} - own.keys()
    if last is None:  # then nothing tells which were set on the engine; those of the model's names were its own
        dropped -= built.thresholds.keys()
    if own:
        say(f"kept, as set on the engine: {_listed(own)}")
    if dropped:
        say(f"dropped, as set on an engine of another network: {', '.join(sorted(dropped))}; set them again")
    if default != built.default_threshold:
        say(f"{default} still decides verdicts, not the model's own {built.default_threshold}")
    return replace(built, thresholds=thresholds, default_threshold=default)


def _changed(link: Sidecar, last: Sidecar | None) -> dict[str, Threshold]:
    known = {} if last is None else last.thresholds
    return {name: threshold for name, threshold in link.thresholds.items() if known.get(name) != threshold}


def same_network(one: Sidecar, other: Sidecar) -> bool:
    """Return whether both are of one network: the same weights and constants, whatever their checkpoints' thresholds.

    Sidecars from before networks had a hash of their own are compared by their checkpoints'.
    """
    if one.network_sha256 and other.network_sha256:
        return one.network_sha256 == other.network_sha256
    return one.checkpoint_sha256 == other.checkpoint_sha256


def _listed(thresholds: Mapping[str, Threshold]) -> str:
    return ", ".join(f"{name} {threshold.value:.6g} ({threshold.method})" for name, threshold in thresholds.items())
