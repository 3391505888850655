"""Option objects from the options of a command."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.export.settings import BoardSettings, Calibration, NamedNetwork


def network(given: dict[str, Any]) -> "NamedNetwork":
    """The network that MODEL, --cut, --weights and --input name."""
    from edgekit.export.settings import NamedNetwork

    return NamedNetwork(given["model"], given.get("cut"), given["weights"], given["input_shape"], given.get("classes"))


def calibration(given: dict[str, Any]) -> "Calibration":
    """The calibration images that --dataset and its companions name, --calibration of them where that is an option."""
    from edgekit.data import registry
    from edgekit.export.settings import Calibration

    dataset = registry.load(given["dataset"], given["data"], given["limit"], given["seed"])
    n_images = {"n_images": given["calibration"]} if "calibration" in given else {}
    return Calibration(dataset, mean=given["mean"], std=given["std"], **n_images)


def board(given: dict[str, Any]) -> "BoardSettings":
    """The board that --device, --norm and --static-batch name."""
    from edgekit.export.settings import BoardSettings

    return BoardSettings(given["device"], given["norm"], given["static_batch"])
