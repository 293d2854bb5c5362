"""What shells complete besides options and host paths: paths in a CIM, hives; and the scripts that make them do so.

Names in a CIM are untrusted, so the scripts of click are not enough: the one for bash puts a name on the command line
as it is, where the shell would run what it says.
"""

from __future__ import annotations

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from cimlayer.cli.images import open_image

_MOST = 1000  # more than people read

_BASH = r"""%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
        dir) compopt -o dirnames ;;
        file) compopt -o default ;;
        plain)
            case $value in *[/=]) compopt -o nospace ;; esac
            case ${COMP_WORDS[COMP_CWORD]} in
            [\'\"]*) case $value in *[\'\"\\\`\$!]*) continue ;; esac ;;  # what would not stay in the quotes
            *) printf -v value %%q "$value" ;;
            esac
            COMPREPLY+=("$value")
            ;;
        esac
    done < <(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_ZSH_ADDS = "        compadd -U -V unsorted -a completions\n"
_ZSH_ADDS_WITHOUT_SPACE = """\
        local -a open=(${(M)completions:#*[/=]}) closed=(${completions:#*[/=]})
        compadd -U -V unsorted -S '' -a open
        compadd -U -V unsorted -a closed
"""


@add_completion_class
class Bash(BashComplete):
    """With names quoted, and no space after a directory."""

    source_template = _BASH


@add_completion_class
class Zsh(ZshComplete):
    """With no space after a directory."""

    source_template = ZshComplete.source_template.replace(_ZSH_ADDS, _ZSH_ADDS_WITHOUT_SPACE)


@add_completion_class
class Fish(FishComplete):
    """With commas in names."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')


SHELLS: dict[str, type[ShellComplete]] = {shell.name: shell for shell in (Bash, Zsh, Fish)}


def hive_names(source: str | None, incomplete: str) -> list[CompletionItem[str]]:
    """The hives of a CIM or a layer."""
    from cimlayer.layer.hivefiles import hives_of  # noqa: PLC0415

    try:
        with open_image(source or "") as reader:
            names = list(hives_of(reader))
    except (OSError, ValueError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]


def inner_paths(image: str | None, incomplete: str) -> list[CompletionItem[str]]:
    """Paths in a CIM that begin with what is typed, in any case, with the separator that was typed."""
    separator = "\\" if "\\" in incomplete else "/"
    start = max(incomplete.rfind("/"), incomplete.rfind("\\")) + 1
    above, typed = incomplete[:start], incomplete[start:].upper()
    try:
        with open_image(image or "") as reader:
            found = [
                CompletionItem(above + entry.name + separator * entry.is_directory)
                for entry in reader.listdir(above)
                if entry.name.upper().startswith(typed) and entry.name.isprintable()
            ]
    except (OSError, ValueError):
        return []
    return found[:_MOST]
