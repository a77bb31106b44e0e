"""Scripts that make a shell complete commands, settings, choices and options."""

from __future__ import annotations

from egnn_prune.cli.registry import COMMANDS, NAME, SHELLS

BASH = """\
# completion of {name} for bash: eval "$({name} --completion bash)"
_{function}() {{
  local words prefix
  if (( COMP_CWORD == 1 )); then words="{commands} --help --version --completion"
  else
    case "${{COMP_WORDS[*]:1:COMP_CWORD-1}} " in
{cases}
    esac
  fi
  COMPREPLY=()
  local line=${{COMP_LINE:0:COMP_POINT}}
  local current=${{line##* }}
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ $current == *=* ]]; then  # bash completes what is behind the last = alone
    prefix=${{current%%=*}}=
    COMPREPLY=("${{COMPREPLY[@]#"$prefix"}}")
  fi
  [[ ${{#COMPREPLY[@]}} -eq 0 || ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
  (( ${{#COMPREPLY[@]}} )) || compopt -o default
}}
complete -F _{function} {name}"""

ZSH = """\
#compdef {name}
# completion of {name} for zsh: eval "$({name} --completion zsh)" after compinit
_{function}() {{
  local -a found
  if (( CURRENT == 2 )); then found=({commands} --help --version --completion)
  else
    case "${{words[2,CURRENT-1]}} " in
{cases}
    esac
  fi
  compadd -S '' -- ${{(M)found:#*=}}
  compadd -- ${{found:#*=}}
  _files
}}
compdef _{function} {name}"""

FISH = """\
# completion of {name} for fish: {name} --completion fish | source
complete -c {name} -n __fish_use_subcommand -f -a '{commands} --help --version --completion'
{cases}"""


def script(shell: str) -> str:
    """The script for a shell.

    Args:
        shell: bash, zsh or fish.
    """
    text, case = dict(
        zip(
            SHELLS,
            (
                (BASH, '      "{0}"*) words="{1}" ;;'),
                (ZSH, '      "{0}"*) found=({1}) ;;'),
                (FISH, "complete -c {name} -n '{condition}' -a '{1}'"),
            ),
            strict=True,
        )
    )[shell]
    studies = [name.partition(" ")[2] for name in COMMANDS if name.startswith("study ")]
    words = {f"{name} ": entry.load().words() for name, entry in COMMANDS.items()}
    words["study "] = studies  # last: the longer names are looked for first
    cases = [
        case.format(start, " ".join(found), name=NAME, condition=_seen(start))
        for start, found in words.items()
    ]
    commands = " ".join(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))
    function = NAME.replace("-", "_")
    return text.format(name=NAME, function=function, commands=commands, cases="\n".join(cases))


def _seen(start: str) -> str:
    return "; and ".join(f"__fish_seen_subcommand_from {word}" for word in start.split())
