"""``jimmy completion``: the script that makes a shell complete commands, job files and keys."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    r"""Print the completion script of a shell.

    \b
    bash:  eval "$(jimmy completion bash)"   in ~/.bashrc
    zsh:   eval "$(jimmy completion zsh)"    in ~/.zshrc, after compinit
    fish:  jimmy completion fish > ~/.config/fish/completions/jimmy.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "jimmy", "_JIMMY_COMPLETE").source())
