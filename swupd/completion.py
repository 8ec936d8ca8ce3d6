"""Completion scripts for bash and zsh, made from the command line as values. Pure.

The scripts are static but for names, which they read from files of the system that the typed --path chooses: the
markers of installed bundles, the copy of the newest MoM that every update leaves for them (specification section 5.2),
the list of repositories, and the marks of deployments that have booted well. Python is never started, so that an answer
takes no time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from swupd.formats import layout
from swupd.syntax import GROUP, Argument, Kind, Option, Subcommand, Value

_NAMES = r"""
# Prints the names of bundles, repositories or deployments of the system in $1; $2 says which.
_swupd_names() {
    local root=${1%/} marker
    case $2 in
    installed)
        for marker in "$root"@TRACKING@/* "$root"/opt/3rd-party/bundles/*@TRACKING@/*; do
            [[ -f $marker ]] && printf '%s\n' "${marker##*/}"
        done
        ;;
    bundle)
        if [[ -r $root/var/tmp/swupd/Manifest.MoM ]]; then
            awk -F '\t' '$1 ~ /^M[^d]/ { print $4 }' "$root/var/tmp/swupd/Manifest.MoM"
        else
            _swupd_names "$1" installed
        fi
        ;;
    repository)
        [[ -r $root/opt/3rd-party/repo.ini ]] &&
            awk '/^\[.*\]$/ { print substr($0, 2, length($0) - 2) }' "$root/opt/3rd-party/repo.ini"
        ;;
    deployment)
        for marker in "$root"/run/state/boot/good/*; do
            [[ -f $marker ]] && printf '%s\n' "${marker##*/}"
        done
        ;;
    esac
}
""".replace("@TRACKING@", layout.TRACKING)

_BASH = r"""# bash completion for swupd; made from the program's own parsers by `make manual`.

_swupd_commands=@COMMANDS@
_swupd_group_commands=@GROUP_COMMANDS@

# Sets flags, values (FLAG=KIND) and arguments (KIND, or KIND+ for one or more) to those of the subcommand $1.
_swupd_syntax() {
    case $1 in
@CASES@
    *) return ;;
    esac
    flags+=@FLAGS@
    values+=@VALUES@
}
@NAMES@
# Fills COMPREPLY with what begins like $cur and is of the kind $1.
_swupd_complete() {
    local IFS=$'\n' before=''
    case $1 in
    directory)
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -d -- "$cur"))
        ;;
    file)
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$cur"))
        ;;
    words:*) COMPREPLY=($(IFS=,; compgen -W "${1#words:}" -- "$cur")) ;;
    list:*)
        [[ $cur == *,* ]] && before=${cur%,*},
        compopt -o nospace 2>/dev/null
        COMPREPLY=($(compgen -P "$before" -W "$(_swupd_names "$root" "${1#list:}")" -- "${cur##*,}"))
        ;;
    installed | bundle | repository | deployment) COMPREPLY=($(compgen -W "$(_swupd_names "$root" "$1")" -- "$cur")) ;;
    esac
}

_swupd() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} root=/ name='' word i
    local flags='' values='' arguments='' kind='' begin=0 awaited='' kinds
    COMPREPLY=()
    # What is typed as --option=value arrives as three words.
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case $word in
        --path | -p)
            root=${COMP_WORDS[i+1]}
            [[ $root == = ]] && root=${COMP_WORDS[i+2]}
            ;;
        -*) ;;
        *)
            if [[ -z $name ]]; then
                name=$word begin=$((i + 1))
            elif [[ $name == @GROUP@ ]]; then
                name="@GROUP@ $word" begin=$((i + 1))
            fi
            ;;
        esac
    done
    case $name in
    '')
        COMPREPLY=($(compgen -W "$_swupd_commands --help --version" -- "$cur"))
        return
        ;;
    @GROUP@)
        COMPREPLY=($(compgen -W "$_swupd_group_commands --help" -- "$cur"))
        return
        ;;
    esac
    _swupd_syntax "$name"
    for word in $values; do
        [[ ${word%%=*} == "$prev" ]] && kind=${word#*=}
    done
    if [[ -z $kind && $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    elif [[ -n $kind ]]; then
        _swupd_complete "$kind"
    else
        # Each argument that was typed uses up one of those that the subcommand takes.
        kinds=($arguments)
        for ((i = begin; i < COMP_CWORD; i++)); do
            word=${COMP_WORDS[i]}
            case $word in
            -*) [[ " $values" == *" $word="* ]] && awaited=1 ;;
            =) ;;
            *)
                [[ -z $awaited && ${kinds[0]} != *+ ]] && kinds=("${kinds[@]:1}")
                awaited=''
                ;;
            esac
        done
        _swupd_complete "${kinds[0]%+}"
    fi
}

complete -F _swupd swupd
"""

_ZSH = r"""#compdef swupd
# zsh completion for swupd; made from the program's own parsers by `make manual`.
@NAMES@
# Offers the names of the kind $1; if $2 is `list`, several separated by commas.
_swupd_offer() {
    local root=/ i
    local -a names
    for ((i = 1; i < $#words; i++)); do
        case $words[i] in
        --path | -p) root=$words[i+1] ;;
        --path=*) root=${words[i]#*=} ;;
        esac
    done
    names=(${(f)"$(setopt null_glob; _swupd_names "$root" $1)"})
    (($#names)) || return 1
    if [[ $2 == list ]]; then
        _values -s , name $names
    else
        compadd -a names
    fi
}

_swupd() {
    local name
    local -a commands group common
    commands=(
@COMMANDS@
    )
    group=(
@GROUP_COMMANDS@
    )
    common=(
@COMMON@
    )
    if ((CURRENT == 2)); then
        _describe subcommand commands
        return
    fi
    shift words
    ((CURRENT--))
    name=$words[1]
    if [[ $name == @GROUP@ ]]; then
        if ((CURRENT == 2)); then
            _describe subcommand group
            return
        fi
        shift words
        ((CURRENT--))
        name="@GROUP@ $words[1]"
    fi
    case $name in
@CASES@
    esac
}

_swupd "$@"
"""


def bash(commands: Sequence[Subcommand]) -> str:
    """The script for bash, to be sourced, or put into its directory of completions as `swupd`."""
    top, group = _split(commands)
    common = _common(commands)
    return _filled(
        _BASH,
        COMMANDS=_quoted(" ".join([*(command.name for command in top), GROUP])),
        GROUP_COMMANDS=_quoted(" ".join(_last_word(command) for command in group)),
        CASES="\n".join(map(_bash_case, commands)),
        FLAGS=_quoted("".join(f" {flag}" for option in common for flag in option.flags)),
        VALUES=_quoted("".join(f" {value}" for value in _bash_values(common))),
        NAMES=_NAMES,
        GROUP=GROUP,
    )


def zsh(commands: Sequence[Subcommand], group_help: str) -> str:
    """The function `_swupd` for zsh, to be put into a directory of its `fpath`."""
    top, group = _split(commands)
    return _filled(
        _ZSH,
        COMMANDS=_zsh_list([*(f"{command.name}:{command.help}" for command in top), f"{GROUP}:{group_help}"]),
        GROUP_COMMANDS=_zsh_list(f"{_last_word(command)}:{command.help}" for command in group),
        COMMON=_zsh_list(spec for option in _common(commands) for spec in _zsh_option(option)),
        CASES="\n".join(map(_zsh_case, commands)),
        NAMES=_NAMES,
        GROUP=GROUP,
    )


# -- bash


def _bash_case(command: Subcommand) -> str:
    own = command.own_options
    kinds = [_bash_kind(argument.value) + "+" * argument.is_repeated for argument in command.arguments]
    lines = [
        f"{_quoted(command.name)})",
        f"    flags={_quoted(' '.join(flag for option in own for flag in option.flags))}",
        f"    values={_quoted(' '.join(_bash_values(own)))}",
        f"    arguments={_quoted(' '.join(kinds))}",
        *([] if command.common_options else ["    return"]),
        "    ;;",
    ]
    return "\n".join(f"    {line}" for line in lines)


def _bash_values(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        if option.value is not None:
            yield from (f"{flag}={_bash_kind(option.value)}" for flag in option.flags)


def _bash_kind(value: Value) -> str:
    if value.words:
        return f"words:{','.join(value.words)}"
    return f"list:{value.kind.value}" if value.is_list else value.kind.value


# -- zsh


def _zsh_case(command: Subcommand) -> str:
    specs = [_quoted(spec) for option in command.own_options for spec in _zsh_option(option)]
    specs += [_quoted(_zsh_argument(argument)) for argument in command.arguments]
    if command.common_options:
        specs.append('"$common[@]"')
    return (
        " \\\n            ".join([f"    {_quoted(command.name)})\n        _arguments -s -S :", *specs]) + "\n        ;;"
    )


def _zsh_option(option: Option) -> Iterator[str]:
    """The specifications of an option, one for each flag: `(-V --version)--version=[help]:N:action`."""
    exclusive = f"({' '.join(option.flags)})" if len(option.flags) > 1 else ""
    help_text = re.sub(r"([\[\]\\])", r"\\\1", option.help)
    for flag in option.flags:
        if option.value is None:
            yield f"{exclusive}{flag}[{help_text}]"
        else:
            sign = "=" if flag.startswith("--") else "+"
            yield f"{exclusive}{flag}{sign}[{help_text}]:{option.value.name}:{_zsh_action(option.value)}"


def _zsh_argument(argument: Argument) -> str:
    begin = "*:" if argument.is_repeated else "::" if argument.is_optional else ":"
    return f"{begin}{argument.value.name}:{_zsh_action(argument.value)}"


def _zsh_action(value: Value) -> str:
    if value.words:
        return f"({' '.join(value.words)})"
    match value.kind:
        case Kind.TEXT:
            return " "
        case Kind.DIRECTORY:
            return "_files -/"
        case Kind.FILE:
            return "_files"
        case _:
            return f" _swupd_offer {value.kind.value}{' list' if value.is_list else ''}"


def _zsh_list(texts: Iterable[str]) -> str:
    return "\n".join(f"        {_quoted(text)}" for text in texts)


# -- both


def _split(commands: Sequence[Subcommand]) -> tuple[list[Subcommand], list[Subcommand]]:
    """The subcommands of one word, and those of two."""
    return [c for c in commands if " " not in c.name], [c for c in commands if " " in c.name]


def _last_word(command: Subcommand) -> str:
    return command.name.rpartition(" ")[2]


def _common(commands: Sequence[Subcommand]) -> tuple[Option, ...]:
    return next((command.common_options for command in commands if command.common_options), ())


def _filled(template: str, **values: str) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], template)


def _quoted(text: str) -> str:
    """A word for a shell, always in quotation marks."""
    return "'" + text.replace("'", "'\\''") + "'"
