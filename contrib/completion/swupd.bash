# bash completion for swupd; made from the program's own parsers by `make manual`.

_swupd_commands='info check-update update bundle-add bundle-remove bundle-list bundle-info search-file search diagnose repair os-install autoupdate mirror rollback status snapshots boot etc reset clean history hashdump 3rd-party'
_swupd_group_commands='add remove list info check-update update bundle-add bundle-remove bundle-list bundle-info diagnose repair clean'

# Sets flags, values (FLAG=KIND) and arguments (KIND, or KIND+ for one or more) to those of the subcommand $1.
_swupd_syntax() {
    case $1 in
    'info')
        flags=''
        values=''
        arguments=''
        ;;
    'check-update')
        flags=''
        values=''
        arguments=''
        ;;
    'update')
        flags='-V -m --version --manifest -s --status -k --keepcache --download --dry-run --incremental --3rd-party --update-search-file-index --skip-diskspace-check --next-boot --retry --reboot-at'
        values='-V=words:latest -m=words:latest --version=words:latest --manifest=words:latest --reboot-at=text'
        arguments=''
        ;;
    'bundle-add')
        flags='--skip-optional --skip-diskspace-check --next-boot'
        values=''
        arguments='bundle+'
        ;;
    'bundle-remove')
        flags='-x --force -R --recursive --orphans --next-boot'
        values=''
        arguments='installed+'
        ;;
    'bundle-list')
        flags='-a --all -D --has-dep --deps --status --orphans'
        values='-D=bundle --has-dep=bundle --deps=bundle'
        arguments=''
        ;;
    'bundle-info')
        flags='-V --version --dependencies --files'
        values='-V=words:latest --version=words:latest'
        arguments='bundle'
        ;;
    'search-file')
        flags='-V --version -l --library -B --binary -T --top -m --csv -i --init -o --order --regexp'
        values='-V=text --version=text -T=text --top=text -o=words:alpha,size --order=words:alpha,size'
        arguments='text'
        ;;
    'search')
        flags=''
        values=''
        arguments='text+'
        return
        ;;
    'diagnose')
        flags='-V --version -x --force -q --quick -B --bundles -Y --picky -X --picky-tree -w --picky-whitelist --extra-files-only --file'
        values='-V=text --version=text -B=list:installed --bundles=list:installed -X=directory --picky-tree=directory -w=text --picky-whitelist=text --file=file'
        arguments=''
        ;;
    'repair')
        flags='-V -m --version --manifest -x --force -q --quick -B --bundles -Y --picky -X --picky-tree -w --picky-whitelist --extra-files-only --file --next-boot'
        values='-V=text -m=text --version=text --manifest=text -B=list:installed --bundles=list:installed -X=directory --picky-tree=directory -w=text --picky-whitelist=text --file=file'
        arguments=''
        ;;
    'os-install')
        flags='-V --version -x --force -B --bundles -s --statedir-cache --download --skip-optional --skip-diskspace-check'
        values='-V=words:latest --version=words:latest -B=list:bundle --bundles=list:bundle -s=directory --statedir-cache=directory'
        arguments='directory'
        ;;
    'autoupdate')
        flags='--enable --disable'
        values=''
        arguments=''
        ;;
    'mirror')
        flags='-s --set -U --unset'
        values='-s=text --set=text'
        arguments=''
        ;;
    'rollback')
        flags='--dry-run'
        values=''
        arguments='deployment'
        ;;
    'status')
        flags=''
        values=''
        arguments=''
        ;;
    'snapshots')
        flags=''
        values=''
        arguments='words:list,delete,pin,unpin deployment+'
        ;;
    'boot')
        flags=''
        values=''
        arguments='words:check,complete'
        ;;
    'etc')
        flags='--all'
        values=''
        arguments='words:diff,revert file+'
        ;;
    'reset')
        flags='--etc --var --cancel'
        values=''
        arguments='file+'
        ;;
    'clean')
        flags='--all --dry-run'
        values=''
        arguments=''
        ;;
    'history')
        flags='-l --lines'
        values='-l=text --lines=text'
        arguments=''
        ;;
    'hashdump')
        flags='-p --path -n --no-xattrs --quiet --debug -h --help'
        values='-p=directory --path=directory'
        arguments='file'
        return
        ;;
    '3rd-party add')
        flags='-x --force'
        values=''
        arguments='text text'
        ;;
    '3rd-party remove')
        flags='-x --force'
        values=''
        arguments='repository'
        ;;
    '3rd-party list')
        flags=''
        values=''
        arguments=''
        ;;
    '3rd-party info')
        flags='-R --repo'
        values='-R=repository --repo=repository'
        arguments=''
        ;;
    '3rd-party check-update')
        flags='-R --repo'
        values='-R=repository --repo=repository'
        arguments=''
        ;;
    '3rd-party update')
        flags='-V -m --version --manifest -s --status -k --keepcache --download --dry-run --skip-diskspace-check -R --repo'
        values='-V=words:latest -m=words:latest --version=words:latest --manifest=words:latest -R=repository --repo=repository'
        arguments=''
        ;;
    '3rd-party bundle-add')
        flags='--skip-optional --skip-diskspace-check --next-boot -R --repo'
        values='-R=repository --repo=repository'
        arguments='bundle+'
        ;;
    '3rd-party bundle-remove')
        flags='-x --force -R --recursive --orphans --next-boot -e --repo'
        values='-e=repository --repo=repository'
        arguments='installed+'
        ;;
    '3rd-party bundle-list')
        flags='-a --all -D --has-dep --deps --status --orphans -R --repo'
        values='-D=bundle --has-dep=bundle --deps=bundle -R=repository --repo=repository'
        arguments=''
        ;;
    '3rd-party bundle-info')
        flags='-V --version --dependencies --files -R --repo'
        values='-V=words:latest --version=words:latest -R=repository --repo=repository'
        arguments='bundle'
        ;;
    '3rd-party diagnose')
        flags='-V --version -x --force -q --quick -B --bundles -Y --picky -X --picky-tree -w --picky-whitelist --extra-files-only --file -R --repo'
        values='-V=text --version=text -B=list:installed --bundles=list:installed -X=directory --picky-tree=directory -w=text --picky-whitelist=text --file=file -R=repository --repo=repository'
        arguments=''
        ;;
    '3rd-party repair')
        flags='-V -m --version --manifest -x --force -q --quick -B --bundles -Y --picky -X --picky-tree -w --picky-whitelist --extra-files-only --file --next-boot -R --repo'
        values='-V=text -m=text --version=text --manifest=text -B=list:installed --bundles=list:installed -X=directory --picky-tree=directory -w=text --picky-whitelist=text --file=file -R=repository --repo=repository'
        arguments=''
        ;;
    '3rd-party clean')
        flags='--all --dry-run -R --repo'
        values='-R=repository --repo=repository'
        arguments=''
        ;;
    *) return ;;
    esac
    flags+=' -p --path -S --statedir -K --cachedir -Z --datadir --cache-limit --cache-days -F --format -u --url -c --contenturl -v --versionurl -P --port -C --certpath -n --nosigcheck --nosigcheck-latest --allow-insecure-http -W --max-parallel-downloads -r --max-retries -d --retry-delay --limit-rate --offline -I --ignore-time -N --no-scripts -b --no-boot-update --wait-for-scripts -y --yes --assume -h --help -j --json-output --quiet --verbose --debug --no-progress -t --time'
    values+=' -p=directory --path=directory -S=directory --statedir=directory -K=directory --cachedir=directory -Z=directory --datadir=directory --cache-limit=text --cache-days=text -F=words:staging --format=words:staging -u=text --url=text -c=text --contenturl=text -v=text --versionurl=text -P=text --port=text -C=file --certpath=file -W=text --max-parallel-downloads=text -r=text --max-retries=text -d=text --retry-delay=text --limit-rate=text --assume=words:yes,no'
}

# Prints the names of bundles, repositories or deployments of the system in $1; $2 says which.
_swupd_names() {
    local root=${1%/} marker
    case $2 in
    installed)
        for marker in "$root"/usr/share/clear/bundles/* "$root"/opt/3rd-party/bundles/*/usr/share/clear/bundles/*; do
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
            elif [[ $name == 3rd-party ]]; then
                name="3rd-party $word" begin=$((i + 1))
            fi
            ;;
        esac
    done
    case $name in
    '')
        COMPREPLY=($(compgen -W "$_swupd_commands --help --version" -- "$cur"))
        return
        ;;
    3rd-party)
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
