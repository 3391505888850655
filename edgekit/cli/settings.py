"""Option objects from the options of a command."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.export.settings import BoardSettings, NamedData, NamedNetwork


def network(given: dict[str, Any]) -> "NamedNetwork":
    """The network that MODEL, --cut, --weights and --input name."""
    from edgekit.export.settings import NamedNetwork

    return NamedNetwork(given["model"], given.get("cut"), given["weights"], given["input_shape"], given.get("classes"))


def data(given: dict[str, Any]) -> "NamedData":
    """The dataset that --dataset, --data and --limit name, --calibration of its images, --mean and --std."""
    from edgekit.export.settings import NamedData

    n_images = {"n_images": given["calibration"]} if "calibration" in given else {}
    return NamedData(given["dataset"], given["data"], given["limit"], mean=given["mean"], std=given["std"], **n_images)


def board(given: dict[str, Any]) -> "BoardSettings":
    """The board that --device, --norm, --static-batch, --train-layers, --provider and --local-head name."""
    from edgekit.export.settings import BoardSettings

    names = ("device", "norm", "static_batch", "train_layers", "provider", "local_head")
    return BoardSettings(**{name: given[name] for name in names})


def hint(given: dict[str, Any]) -> str:
    """What to mind where --train-layers freezes layers whose weights nobody gave; "" elsewhere."""
    count, model = given["train_layers"], given["model"]
    if count is None or given["weights"] is not None:
        return ""
    unless = f", unless {model} gives them trained weights" if ":" in model else ""
    return (
        f"hint: --train-layers {count} without --weights: the other layers of the front half were never trained, and "
        f"never will be{unless}. Give them weights with --weights"
    )
