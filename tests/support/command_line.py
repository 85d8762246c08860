"""Runs commands of the command line within this process."""

from typer.testing import CliRunner, Result

from app.__main__ import cli


def run(command_line: str, database_url: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, command_line.split(), env={"DATABASE_URL": database_url, **environ})


def the_line(result: Result) -> str:
    """The message of a refusal: one line, exit code 2."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    return line
