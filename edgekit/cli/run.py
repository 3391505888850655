"""edgekit run"""

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.pass_context
def run(context: click.Context) -> None:
    """Run and train the front half of a bundle on this device; the same as `python -m edgekit.runtime`."""
    from edgekit.runtime.__main__ import main

    context.exit(main(context.args, program="edgekit run"))
