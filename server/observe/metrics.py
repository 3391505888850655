"""Metrics: a status in Prometheus' text format. docs/watching.md lists them.

Names of devices are labels. They come from outside; the library escapes them, and `edgekit.server.observe.sight` bounds
how many there are.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edgekit import errors
from edgekit.server.observe.status import Status

#: Metric -> field of the status, and its help. Counters; those of `GAUGES` may be null, and are left out then.
COUNTERS = {
    "edgekit_batches": ("batches", "Batches that were answered with a gradient."),
    "edgekit_batches_left_out": ("batches_left_out", "Batches among them that nobody learned from."),
    "edgekit_images": ("images", "Images that were learned from."),
    "edgekit_images_right": ("images_right", "Images among them that were classified right, before the step."),
}
GAUGES = {
    # A run may go back to a checkpoint: these go back with it.
    "edgekit_steps": ("steps", "Joint steps of the back half."),
    "edgekit_steps_without_some": ("steps_without_some", "Joint steps that did not wait for all devices."),
    "edgekit_rounds": ("rounds", "Rounds in which front halves were averaged."),
    "edgekit_late_updates": ("late_updates", "Updates that came too late for their round."),
    "edgekit_progress_ratio": ("progress", "Images seen by all devices, of those planned."),
    "edgekit_loss": ("loss", "Mean training loss of the latest batches."),
    "edgekit_learning_rate": ("rate", "Learning rate of the latest step."),
    "edgekit_last_step_timestamp_seconds": ("last_step", "When a batch was last learned from."),
    "edgekit_start_timestamp_seconds": ("began", "When the server began."),
    "edgekit_expected_devices": ("devices_expected", "What --devices says."),
}
#: The same of each device.
OF_DEVICE = {
    "edgekit_device_step": ("step", "Steps of the device in its session."),
    "edgekit_device_steps_behind": ("behind", "Steps that the device is behind the foremost one."),
    "edgekit_device_tables_version": ("tables", "Version of the device's codec tables."),
    "edgekit_device_loss": ("loss", "Mean training loss of the device's latest batches."),
    "edgekit_device_last_message_timestamp_seconds": ("heard", "When the device's latest message came."),
}


class Metrics(Collector):
    """The metrics of what `look` gives, asked for at every scrape, and those of the process."""

    def __init__(self, look: Callable[[], Status]) -> None:
        self._look = look
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of them in the text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: so that registering does not look yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._look()
        told = {key: status[key] for key in ("run", "bundle")}
        yield InfoMetricFamily("edgekit_run", "Run, bundle and version.", {**told, "version": status["edgekit"]})
        for name, (key, text) in COUNTERS.items():
            yield CounterMetricFamily(name, text, status[key])
        for name, (key, text) in GAUGES.items():
            if status[key] is not None:
                yield GaugeMetricFamily(name, text, status[key])
        states = GaugeMetricFamily("edgekit_devices", "Devices by what they do.", labels=["state"])
        for state, count in status["states"].items():
            states.add_metric([state], count)
        yield states
        events = CounterMetricFamily("edgekit_events", "Events; away: a line that broke.", labels=["event"])
        for event, count in status["events"].items():
            events.add_metric([event], count)
        yield events
        yield from _test(status)
        yield _parts(status)
        yield from _line(status)
        yield from _devices(status)


def _test(status: Status) -> Iterator[Metric]:
    """What the last test came to, once there was one."""
    tested = status["tested"]
    if tested is not None:
        yield GaugeMetricFamily(
            "edgekit_test_accuracy_ratio", "Test images classified right in the last test.", tested["accuracy"] / 100
        )
        yield GaugeMetricFamily("edgekit_test_loss", "Mean loss of the last test.", tested["test_loss"])


def _parts(status: Status) -> Metric:
    parts = HistogramMetricFamily(
        "edgekit_batch_seconds", "Seconds from a batch's arrival to its answer, by what they went to.", labels=["part"]
    )
    for part, spread in status["seconds"].items():
        parts.add_metric([part], list(spread["buckets"].items()), spread["sum"])
    return parts


def _line(status: Status) -> Iterator[Metric]:
    labels = ["direction", "kind"]
    frames = CounterMetricFamily("edgekit_messages", "Messages, up from devices and down to them.", labels=labels)
    volume = CounterMetricFamily("edgekit_message_bytes", "Bytes of their frames, header and all.", labels=labels)
    for each in status["messages"]:
        at = [each["direction"], each["kind"]]
        frames.add_metric(at, each["frames"])
        volume.add_metric(at, each["bytes"])
    refused = CounterMetricFamily("edgekit_errors", "Errors that devices were told.", labels=["code", "error"])
    for code, count in status["errors"].items():
        refused.add_metric([code, CLASSES.get(int(code), "EdgekitError")], count)
    yield from (frames, volume, refused)


def _devices(status: Status) -> Iterator[Metric]:
    for name, (key, text) in OF_DEVICE.items():
        gauge = GaugeMetricFamily(name, text, labels=["device"])
        for device in status["devices"]:
            if device.get(key) is not None:
                gauge.add_metric([device["name"]], device[key])
        yield gauge
    images = CounterMetricFamily("edgekit_device_images", "Images of the device learned from.", labels=["device"])
    volume = CounterMetricFamily(
        "edgekit_device_bytes", "Bytes of the device's frames.", labels=["device", "direction"]
    )
    used = GaugeMetricFamily("edgekit_device_codebook_used_ratio", "Codebook entries in use.", labels=["device"])
    even = GaugeMetricFamily(
        "edgekit_device_codebook_perplexity_entries", "Entries that, evenly used, say as much.", labels=["device"]
    )
    for device in status["devices"]:
        name, codebook = device["name"], device["codebook"]
        images.add_metric([name], device["images"])
        volume.add_metric([name, "up"], device["bytes_up"])
        volume.add_metric([name, "down"], device["bytes_down"])
        if codebook is not None:
            used.add_metric([name], codebook["used"])
            even.add_metric([name], codebook["perplexity"])
    yield from (images, volume, used, even)


def _classes() -> dict[int, str]:
    """By exit code, the name of the class of errors; of several the one that the others are kinds of."""
    found: dict[int, str] = {}
    for each in vars(errors).values():
        if isinstance(each, type) and issubclass(each, errors.EdgekitError):
            found.setdefault(each.exit_code, each.__name__)
    return found


CLASSES = _classes()
