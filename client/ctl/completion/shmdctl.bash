# bash completion for shmdctl(1): commands, options, their values, and names from the broker.

# Prints the options of a command; those that take a value end with '='.
_shmdctl_options() {
        local global='--socket= --json --bytes --timeout= --quiet --help --usage --version'

        case $1 in
        create)  echo "--mode= --exclusive --open --lifetime= --huge= --freezable --reserve --ttl= --hold $global" ;;
        put)     echo "--replace --mode= --reserve --freeze --ttl= $global" ;;
        publish) echo "--replace --ttl= $global" ;;
        freeze)  echo "--single-writer $global" ;;
        ticket)  echo "--id= --write --uses= --ttl= --user= $global" ;;
        redeem)  echo "--hold $global" ;;
        tickets) echo "--id= $global" ;;
        bell)    echo "--count= --id= $global" ;;
        revoke)  echo "--all --id= $global" ;;
        ls)      echo "--long --recursive --orphans $global" ;;
        stat)    echo "--id= --holders --pages $global" ;;
        holders) echo "--id= $global" ;;
        mv)      echo "--no-replace --exchange $global" ;;
        mkdir)   echo "--mode= --parents $global" ;;
        watch)   echo "--events= --list --count= $global" ;;
        wait)    echo "--unheld --frozen $global" ;;
        why)     echo "--as= --size= $global" ;;
        acl)     echo "--modify= --remove= --set= --remove-all --remove-default --default --no-mask --numeric $global" ;;
        reload)  echo "--daemon= --policy-root= $global" ;;
        state)   echo "--check= --daemon= --dump= $global" ;;
        df)      echo "--directory= --user= --accounts --total --rules $global" ;;
        top)     echo "--delay= --iterations= --once --sort= --reverse $global" ;;
        doctor)  echo "--strict $global" ;;
        upgrade) echo "--if-replaced= $global" ;;
        ping)    echo "--count= --interval= --busy-poll $global" ;;
        *)       echo "$global" ;;
        esac
}

# Names in the broker's tree that begin with $1, which may be typed with backslashes. A broker that
# is slow must not hang the shell.
_shmdctl_names() {
        local name typed=${1//\\/}

        while IFS= read -r name; do
                [[ $name == "$typed"* ]] && COMPREPLY+=("$(printf '%q' "$name")")
        done < <(shmdctl "${_shmdctl_socket[@]}" ls -R --timeout=1s 2>/dev/null)
}

_shmdctl_words() {
        local word

        while IFS= read -r word; do
                COMPREPLY+=("$word")
        done < <(compgen -W "$1" -- "$2")
}

# The value of option $1, of which $2 is typed.
_shmdctl_value() {
        case $1 in
        --socket | --check | --daemon | --dump) _shmdctl_files "$2" ;;
        --lifetime)              _shmdctl_words 'named session counted' "$2" ;;
        --huge)                  _shmdctl_words '2M 1G' "$2" ;;
        --as)                    _shmdctl_words "$(compgen -u -- "$2")" "$2" ;;
        --user | -u)             _shmdctl_words "$(compgen -u -- "$2")" "$2" ;;
        --directory)             _shmdctl_names "$2" ;;
        -d)                      [[ $command == top ]] || _shmdctl_names "$2" ;;
        --sort)                  _shmdctl_words 'allocated size grants rate user name' "$2" ;;
        --timeout | --interval | --ttl | --delay) _shmdctl_words '500ms 1s 10s 1min' "$2" ;;
        --mode | -m)             [[ $command == acl ]] || _shmdctl_words '0600 0640 0644 0660 0666 0755 1777' "$2" ;;
        esac
}

_shmdctl_files() {
        local file

        compopt -o filenames 2>/dev/null
        while IFS= read -r file; do
                COMPREPLY+=("$file")
        done < <(compgen -f -- "$1")
}

# Operand number $2 (from 0) of command $1, of which $3 is typed.
_shmdctl_operand() {
        case $1,$2 in
        help,0)                            _shmdctl_words "$_shmdctl_commands" "$3" ;;
        put,1 | redeem,0 | reload,0)       _shmdctl_files "$3" ;;
        why,0)                             _shmdctl_words 'open write create mkdir unlink rmdir rename link list stat chmod chown wait watch freeze ticket holders' "$3" ;;
        why,*)                             _shmdctl_names "$3" ;;
        chmod,0)                           _shmdctl_words '0600 0640 0644 0660 0666 0755 1777' "$3" ;;
        chown,0)                           _shmdctl_words "$(compgen -u -- "$3")" "$3" ;;
        create,0 | put,0 | cat,0 | ls,0)   _shmdctl_names "$3" ;;
        ticket,0 | tickets,0 | revoke,0)   _shmdctl_names "$3" ;;
        mv,[01] | ln,[01])                 _shmdctl_names "$3" ;;
        freeze,0 | expire,0)               _shmdctl_names "$3" ;;
        expire,1)                          _shmdctl_words '10min 1h 12h never' "$3" ;;
        stat,0 | holders,0 | map,0)         _shmdctl_names "$3" ;;
        bell,0)                            _shmdctl_words 'ring wait' "$3" ;;
        bell,1)                            _shmdctl_names "$3" ;;
        wait,0 | watch,0 | publish,1)                _shmdctl_names "$3" ;;
        rm,* | mkdir,* | rmdir,*)          _shmdctl_names "$3" ;;
        chmod,* | chown,* | acl,*)         _shmdctl_names "$3" ;;
        esac
}

_shmdctl_commands='create put publish cat ticket redeem tickets revoke bell ls stat holders map rm mv ln freeze expire mkdir rmdir chmod chown acl why wait watch df reload state upgrade ping stats metrics top doctor version help'

_shmdctl() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev='' command='' operands=0 word previous='' i
        local -a _shmdctl_socket=()

        COMPREPLY=()
        # '=' is a word of its own to readline: --mode=06 is three words.
        for ((i = 1; i < COMP_CWORD; ++i)); do
                word=${COMP_WORDS[i]}
                case $previous in
                --socket=)                _shmdctl_socket=(--socket "$word") ;;
                --*= | -m | -i | -u | -d | -c) ;;
                *)
                        case $word in
                        --socket | --timeout | --mode | --lifetime | --huge | --id | --directory | \
                        --user | --count | --interval | --modify | --remove | --set | --as | --size | --uses | --ttl | \
                        --check | --daemon | --dump | --policy-root | --delay | --iterations | --sort)
                                [[ ${COMP_WORDS[i + 1]} == '=' ]] && ((++i))
                                previous=$word=
                                continue ;;
                        -d) [[ $command == acl ]] && word=- ;;          # without a value there,
                        -x) [[ $command == acl ]] && word=--remove= ;;  # and with one
                        -*) ;;
                        *)
                                if [[ -z $command ]]; then command=$word; else ((++operands)); fi ;;
                        esac ;;
                esac
                previous=$word
        done
        case $previous in
        --*= | -m | -i | -u | -d | -c) prev=${previous%=} ;;
        esac
        [[ $cur == '=' ]] && cur=''

        if [[ -n $prev ]]; then
                [[ $prev == -i && $command != ping ]] || _shmdctl_value "$prev" "$cur"
        elif [[ $cur == -* ]]; then
                _shmdctl_words "$(_shmdctl_options "$command")" "$cur"
                [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
        elif [[ -z $command ]]; then
                _shmdctl_words "$_shmdctl_commands" "$cur"
        else
                _shmdctl_operand "$command" "$operands" "$cur"
        fi
}

complete -F _shmdctl shmdctl
