"""edgekit check"""

import click

from edgekit.cli import options


@click.command()
@options.bundle
@click.option("--backend", default="onnxruntime", help="Engine that reruns the golden data.")
@click.option(
    "--reference/--no-reference",
    default=True,
    help="Also run onnx's own reference evaluator on one image: slow where images are large.",
)
@options.as_json
def check(bundle: str, backend: str, reference: bool, as_json: bool) -> None:
    """Rerun a bundle's golden data and the board's rules, and report the differences.

    Codes, decoded feature and gradients are compared with those of the export, each with a tolerance for the engine's
    precision. Every graph is checked by onnx.checker, and the deployed one by the rules of the board that it was
    exported for. Also shown: how many codes would change on a board that compares distances in float16. Exit code 8
    when something differs.

    \b
    edgekit check bundle
    edgekit check bundle --backend reference --json
    """
    from rich.console import Console

    from edgekit.bundle import open_bundle
    from edgekit.export.parity.check import check_bundle

    opened = open_bundle(bundle)
    with Console(stderr=True).status("graphs") as status:
        report = check_bundle(opened, backend, reference=reference, progress=status.update)
    if as_json:
        options.print_json(report.to_json())
        report.require()
        return
    click.echo(f"{bundle}: {report.model} cut at {report.cut} for {report.device}")
    click.echo(f"rerun on {report.backend}, tolerances of {report.precision}")
    for each in report.checks:
        click.echo(f"{'passed' if each.passed else 'FAILED'}  {each.name}: {each.got} (expected {each.expected})")
    for note in report.notes:
        click.echo(f"note: {note}")
    half = report.half_scores
    if half is None:
        click.echo(f"float16 scores: codec {opened.codec!r} compares no scores")
    else:
        click.echo(
            f"float16 scores: {half.flips} of {half.codes} codes flip ({half.flips / half.codes:.2%}); the decoded "
            f"feature moves by {half.change:.2g} of its norm, its quantisation error is {half.error:.4f} with float32 "
            f"and {half.error_float16:.4f} with float16 scores"
        )
    report.require()
