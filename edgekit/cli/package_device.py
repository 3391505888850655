"""edgekit package-device"""

import os

import click

from edgekit.cli import options

#: How each form is installed and run on the board; {name} is the file's name.
USE = {
    "wheel": (
        "python3 -m pip install {name}",
        "edgekit-doctor BUNDLE --server HOST:PORT",
        "edgekit-run BUNDLE --server HOST:PORT",
    ),
    "zip": (
        "python3 -m pip install {requires}",
        "python3 {name} doctor BUNDLE --server HOST:PORT",
        "python3 {name} BUNDLE --server HOST:PORT",
        "PYTHONPATH={name} python3 -m edgekit.runtime BUNDLE --server HOST:PORT     (the same)",
    ),
}


@click.command()
@click.option("-o", "--out", default=".", metavar="DIR", help="Folder to write to.")
@click.option("--format", "form", type=click.Choice([*USE, "both"]), default="both",
              help="wheel: for pip; zip: runs as it is.")  # fmt: skip
@options.as_json
def package_device(out: str, form: str, as_json: bool) -> None:
    """Write the part of edgekit that a board runs: a wheel, and one zip file.

    Either is enough, and needs Python 3.6 or newer with numpy, ONNX Runtime and grpcio. The same version of edgekit
    gives the same bytes. Never install the wheel beside edgekit itself: both hold the package `edgekit`.

    \b
    edgekit package-device -o dist
    edgekit package-device --format zip --json
    scp edgekit-device-*.zip board: && ssh board python3 edgekit-device-*.zip --help
    """
    import edgekit
    from edgekit.deploy.package import REQUIRES, REQUIRES_PYTHON, write_wheel, write_zip

    writers = {"wheel": write_wheel, "zip": write_zip}
    written = {name: writers[name](out) for name in USE if form in (name, "both")}
    sizes = {name: os.path.getsize(path) for name, path in written.items()}
    if as_json:
        files = {name: {"path": path, "bytes": sizes[name]} for name, path in written.items()}
        needs = {"requires_python": REQUIRES_PYTHON, "requires": REQUIRES}
        options.print_json({"version": edgekit.__version__, **needs, "files": files})
        return
    requires = " ".join(f"'{each}'" for each in REQUIRES)
    for name, path in written.items():
        click.echo(f"{path}  {sizes[name]} B")
        for line in USE[name]:
            click.echo("    " + line.format(name=os.path.basename(path), requires=requires))
    click.echo("On Python 3.6 first renew pip, whose own version does not know the form of today's wheels:")
    click.echo("    python3 -m pip install pip==21.3.1")
    click.echo("It then picks the last versions for 3.6: numpy 1.19.5, onnxruntime 1.10.0, grpcio 1.48.2.")
