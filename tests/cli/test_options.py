"""What options become, before any command runs."""

from typing import Any

import pytest

from edgekit.cli.options import codec_config
from edgekit.errors import UsageError


@pytest.mark.parametrize("given", [{"grouping": "significance"}, {"weighted": True}, {"coding": "context"}])
def test_settings_of_sgq_are_refused_elsewhere(given: dict[str, Any]) -> None:
    assert codec_config("sgq", 4, 8, **given).items() >= given.items()
    with pytest.raises(UsageError, match="leave them out with product"):
        codec_config("product", 4, 8, **given)
